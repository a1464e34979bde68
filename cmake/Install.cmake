# Install rules: header, both libraries, pkg-config file and CMake package. The program's rule is in cli/.
include(CMakePackageConfigHelpers)

install(FILES include/qins.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/qins)
set_target_properties(qins_shared PROPERTIES EXPORT_NAME shared)
set_target_properties(qins_static PROPERTIES EXPORT_NAME static)
install(TARGETS qins_shared EXPORT qinsSharedTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS qins_static EXPORT qinsStaticTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT qinsSharedTargets NAMESPACE qins:: DESTINATION ${package_dir})
install(EXPORT qinsStaticTargets NAMESPACE qins:: DESTINATION ${package_dir})

configure_package_config_file(cmake/qinsConfig.cmake.in ${PROJECT_BINARY_DIR}/qinsConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/qinsConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/qinsConfig.cmake ${PROJECT_BINARY_DIR}/qinsConfigVersion.cmake
  DESTINATION ${package_dir})

# The .pc file finds its prefix from where it lies, so that an installed tree may be moved.
file(RELATIVE_PATH QINS_PC_PREFIX "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
foreach(folder LIBDIR INCLUDEDIR)
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${folder}}")
    set(QINS_PC_${folder} "${CMAKE_INSTALL_${folder}}")
  else()
    set(QINS_PC_${folder} "\${prefix}/${CMAKE_INSTALL_${folder}}")
  endif()
endforeach()
configure_file(cmake/qins.pc.in ${PROJECT_BINARY_DIR}/qins.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/qins.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
