/* Rates of rows. SPDX-License-Identifier: MIT */
#include "testing.h"

#include "model/allocate.h"

enum { N_ROWS = 64, N_COLS = 512, N_ITEMS = 2 };

/* Two matrices for an entropy coder at a rate. */
static qins_plan make_plan(qins_parameter parameters[N_ITEMS], double rate) {
    qins_plan plan = {.items = calloc(N_ITEMS, sizeof *plan.items), .n_items = N_ITEMS};
    for (size_t i = 0; i < N_ITEMS; i++) {
        parameters[i] = (qins_parameter){.role = QINS_ROLE_LINEAR, .n_dims = 2, .shape = {N_ROWS, N_COLS}};
        qins_encode_defaults(&plan.items[i].options);
        plan.items[i].parameter = &parameters[i];
        plan.items[i].encode = true;
        plan.items[i].options.codec = plan.items[i].wanted = QINS_CODEC_UNIFORM;
        plan.items[i].options.scale = QINS_SCALE_ROW;
        plan.items[i].options.rotate = QINS_ON;
        plan.items[i].options.rate = rate;
    }
    return plan;
}

static void rates_follow_the_losses_and_keep_their_average(void **state) {
    (void)state;
    for (double rate = 2; rate <= 6; rate++) {
        qins_parameter parameters[N_ITEMS];
        qins_plan plan = make_plan(parameters, rate);
        float losses[N_ITEMS][N_ROWS];
        for (size_t r = 0; r < N_ROWS; r++) {
            losses[0][r] = r % 2 == 0 ? 1e-3f : 2e-3f;
            losses[1][r] = 4 * losses[0][r];
        }
        const float *const of[N_ITEMS] = {losses[0], losses[1]};
        qins_error err = {0};
        assert_int_equal(qins_allocate_rates(of, &plan, &err), QINS_OK);
        double sum = 0, length[QINS_MAX_LEVELS];
        for (size_t i = 0; i < N_ITEMS; i++)
            for (size_t r = 0; r < N_ROWS; r++) {
                sum += (double)plan.items[i].row_rates[r];
                assert_true(
                    (double)plan.items[i].row_rates[r] <=
                    qins_rate_of_least_step(plan.items[i].options.codec, plan.items[i].options.bits, 0, length) + 1e-6);
            }
        assert_close(sum / (N_ITEMS * N_ROWS), rate, 0.07); /* steps of 1/8 */
        /* Four times the loss of a matrix is a bit, twice that of a row 0.7 of half a bit. */
        assert_close((double)plan.items[1].row_rates[0] - (double)plan.items[0].row_rates[0], 1.0, 0.13);
        assert_close((double)plan.items[0].row_rates[1] - (double)plan.items[0].row_rates[0], 0.35, 0.13);
        qins_plan_free(&plan);
    }
}

static void no_row_goes_more_than_a_bit_below_the_average(void **state) {
    (void)state;
    qins_parameter parameters[N_ITEMS];
    qins_plan plan = make_plan(parameters, 3);
    float losses[N_ITEMS][N_ROWS] = {{0}};
    for (size_t r = 0; r < N_ROWS; r++)
        losses[1][r] = r == 0 ? 1e6f : 1.0f;
    const float *const of[N_ITEMS] = {losses[0], losses[1]};
    qins_error err = {0};
    assert_int_equal(qins_allocate_rates(of, &plan, &err), QINS_OK);
    for (size_t i = 0; i < N_ITEMS; i++)
        for (size_t r = 0; r < N_ROWS; r++)
            assert_true(plan.items[i].row_rates[r] >= 2.0f && plan.items[i].row_rates[r] <= 8.0f);
    assert_true(plan.items[1].options.rate > plan.items[0].options.rate + 1);
    qins_plan_free(&plan);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_follow_the_losses_and_keep_their_average),
        cmocka_unit_test(no_row_goes_more_than_a_bit_below_the_average),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
