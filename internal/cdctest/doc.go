// Package cdctest provides databases for tests of logical replication.
//
//	func TestMain(m *testing.M) { cdctest.Main(m) } // fails if goroutines are left
//
//	d := cdctest.New(t)                    // a database for this test, dropped with its slots at the end
//	d.Exec(`create table t (id int primary key)`)
//	cdctest.Query[int](d, `select count(*) from t`)
//
//	p := cdctest.NewPrivate(t)             // a server for this test, which it may kill or stop
//	p.Standby(`primary_conninfo=...`)      // a standby of it
//
// All databases of [New] are on the Postgres server that all tests share, so roles and settings of the server are shared
// too: a test that changes these, or harms the server, takes [NewPrivate].
package cdctest
