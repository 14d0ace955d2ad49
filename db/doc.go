// Package db is Delta's SQL: the queries of the queries folder as sqlc makes them, the set-based inform on top of them,
// and the one function that turns a row into the public type.
//
// It is importable because Delta's other packages need it. It is not part of the public API: it may change in any
// release.
package db
