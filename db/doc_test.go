// Package db_test tests the queries on a real Postgres.
//
//   - main_test.go: objects, and helpers that inform and read them.
//   - keys_harness_test.go, key_rate_test.go: rows with limit keys, and a fleet of clients with a clock that the test
//     moves.
//   - plan_test.go: which rows the frequent statements read, and not only with a good plan. The statements are in
//     plan_statements_test.go and its neighbours, plan_reads_test.go counts the rows.
//   - property_test.go, conditions_test.go: informs at random, and all combinations of their conditions.
package db_test
