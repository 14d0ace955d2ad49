// Package deltatest tests controllers, without servers or on real ones.
//
// Without servers, a controller is called as Delta calls it, with the result that Delta would write:
//
//	outcome, err := deltatest.Work(ctx, controller, invoice{Number: number}, &deltatest.WorkOpts{Attempt: attempt, Now: noon})
//
// [Work], [WorkBatch], [Finalize] and [List] do so. On real servers, [New] gives a test a fresh, migrated database and a Temporal client, with nothing to install or start:
//
//	env := deltatest.New(t)
//
//	work := &orders{}
//	controllers := delta.NewControllers()
//	delta.AddController(controllers, work)
//	client, err := delta.NewClient(env.Pool, &delta.Config{
//		Controllers: controllers, Temporal: env.Temporal, WorkflowIDPrefix: env.Prefix,
//	})
//
// [RequireInformed] and [RequireNotInformed] check which objects a program has informed, in a database or in an open transaction.
//
// # What runs, and for how long
//
// The first test process that needs them starts the servers, in a background
// process made from its own test binary. Every other test process of the same
// user shares them: the packages of `go test ./...`, and the next run. Half a
// minute after the last of these processes has ended, the servers end too and
// leave nothing behind. Nothing has to be installed or started by hand. A
// Postgres that is already on the machine saves a download, and so does a
// temporal command with a server of version 1.32 or later, or the program
// github.com/chariot-giving/delta/tools/delta-temporal.
//
// Set DELTA_DATABASE_URL to use a Postgres that already runs, as a user with
// CREATEDB. It keeps a database delta_template_… for each version of Delta's
// migrations, and a database delta_test_… of each test whose process was killed:
// drop them when no test runs. Set TEMPORAL_ADDRESS (with the rest of the
// Temporal SDK's environment configuration) to use such a Temporal.
//
// # Isolation
//
// Each call makes a database of its own, a copy of one that was migrated once,
// and drops it when the test ends. The Temporal namespace is shared: give
// [Env.Prefix] to Delta as the prefix of its workflow ids, and use it in ids and
// task queues of your own.
//
// # The background process
//
// It is the test binary, run again with DELTA_TEST_SUPERVISOR set; this
// package takes over in its init function and never returns to the tests.
// DELTA_TEST_IDLE changes how long it stays when nobody needs it ("30s").
// DELTA_TEST_DIR is a directory for the data of the servers, instead of one for
// temporary files: one in memory, such as /dev/shm on Linux, makes tests faster.
// They need some hundred megabytes of it.
package deltatest
