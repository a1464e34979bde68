# cmake -DINPUT=file.txt -DOUTPUT=file.c -DNAME=symbol -DHEADER=declares.h -P EmbedText.cmake
# Writes a C file with the bytes of INPUT as `const char NAME[]` (NUL-terminated) and `const size_t NAME_bytes`.
file(READ "${INPUT}" hex HEX)
string(LENGTH "${hex}" n_digits)
math(EXPR n_bytes "${n_digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
string(REGEX REPLACE "(('....',){16})" "\\1\n    " bytes "${bytes}")
get_filename_component(source "${INPUT}" NAME)
file(WRITE "${OUTPUT}" "/* Generated from ${source}. */
#include \"${HEADER}\"

const char ${NAME}[] = {
    ${bytes}0};
const size_t ${NAME}_bytes = ${n_bytes};
")
