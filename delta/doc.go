// Package delta keeps rows of a Postgres table true to a system outside it.
//
//	type Account struct{ Number, Plan string }
//
//	func (a Account) ID() string { return a.Number }
//	func (Account) Kind() string { return "account" }
//
//	type AccountController struct {
//		delta.WorkerDefaults[Account]
//		delta.ListerDefaults[Account]
//	}
//
//	// Work brings one account in line. After an error it is tried again, with backoff.
//	func (AccountController) Work(ctx context.Context, r *delta.Resource[Account]) error {
//		return provider.SetPlan(ctx, r.Object.Number, r.Object.Plan)
//	}
//
//	// List yields all accounts that exist, each hour by default.
//	func (AccountController) List(ctx context.Context, _ *delta.InformOptions) iter.Seq2[Account, error] {
//		return provider.Accounts(ctx)
//	}
//
// A program declares its controllers, starts a client, and informs it of objects:
//
//	controllers := delta.NewControllers()
//	delta.AddController(controllers, AccountController{})
//	client, err := delta.NewClient(pool, &delta.Config{
//		Controllers: controllers,
//	})
//	if err != nil {
//		panic(err)
//	}
//	if err := client.Start(ctx); err != nil {
//		panic(err)
//	}
//	defer client.Stop(ctx)
//
//	// Inform only writes the row. Sync also waits for the outcome.
//	row, err := client.Sync(ctx, Account{Number: "acct_17", Plan: "pro"}, nil)
//
// An [Object] stands for something outside. A [Controller] brings one object in line ([Worker]) and lists all of them ([Lister], or [Informer] on a channel).
// Delta does the rest: the row, retries, expiry, retention, periodic listings and recovery from faults. Postgres is the truth and Temporal the engine: a
// durable workflow owns the timers of each resource, keeps no state of its own, and reads the row at each step. Postgres decides which worker has a
// resource; Temporal only decides which should try.
//
// # The life of a resource
//
//	Inform: new or changed ──► scheduled ──claim──► pending ──► synced ──expiry──► expired ──claim──► pending
//	                                                 ▲   │          └──retention──► row removed
//	                                                 │   ├─ error, panic, timeout ──► failed ──backoff, claim─┐
//	                                                 └───┼────────────────────────────────────────────────────┘
//	                                                     ├─ the same, attempts used up ──► degraded ──slow retry──► failed
//	                                                     ├─ ResourceDegrade ──► degraded ──retention──► row removed
//	                                                     ├─ ResourceDelete ──► deleted ──Finalize, retention──► row removed
//	                                                     └─ ResourceSnooze ──► scheduled, later
//
// A new or changed object takes a resource from any state to scheduled, and starts a new generation. A deleted resource needs an explicit Inform for that,
// unless a listing had deleted it. The docs have [all states] and [all outcomes of Work] in one table each.
//
// # What always holds
//
//   - A generation is one episode of syncing; attempts count within it. Only the worker that has a claim on the row calls Work, and it renews the claim in
//     Postgres. An outcome is written by the claim that it came from, or not at all: an older outcome never overwrites a newer one.
//   - Each due row is found by an index and its workflow woken, whichever process died in between. A wake-up carries nothing, so it may come twice.
//   - The newest informed generation is synced in the end, or is visibly degraded.
//   - User code runs in no transaction of Delta's and holds none of its locks.
//   - Objects stay in Postgres. Their kinds, ids, namespaces and states reach Temporal, and the beginning of the latest error.
//
// # Where to go on
//
// The [guide] explains objects and controllers step by step, [operations] what to watch in production, and [architecture] how Delta is built. Package
// deltatest tests controllers, package console shows resources in a browser.
//
// [all states]: https://github.com/chariot-giving/delta/blob/main/docs/concepts.md#states
// [all outcomes of Work]: https://github.com/chariot-giving/delta/blob/main/docs/concepts.md#outcomes-of-work
// [guide]: https://github.com/chariot-giving/delta/blob/main/docs/guide.md
// [operations]: https://github.com/chariot-giving/delta/blob/main/docs/operations.md
// [architecture]: https://github.com/chariot-giving/delta/blob/main/docs/architecture.md
package delta
