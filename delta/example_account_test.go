package delta_test

import (
	"context"
	"fmt"
	"iter"

	"github.com/chariot-giving/delta/delta"
)

// Account is an account at a provider: its number, and the plan that it shall have.
type Account struct{ Number, Plan string }

func (a Account) ID() string { return a.Number }
func (Account) Kind() string { return "account" }

type AccountController struct {
	delta.WorkerDefaults[Account]
	delta.ListerDefaults[Account]
}

// Work brings one account in line. After an error it is tried again, with backoff.
func (AccountController) Work(ctx context.Context, r *delta.Resource[Account]) error {
	return provider.SetPlan(ctx, r.Object.Number, r.Object.Plan)
}

// List yields all accounts that exist, each hour by default.
func (AccountController) List(ctx context.Context, _ *delta.InformOptions) iter.Seq2[Account, error] {
	return provider.Accounts(ctx)
}

var provider accountProvider

// accountProvider stands for the API of the other system.
type accountProvider struct{}

func (accountProvider) SetPlan(context.Context, string, string) error { return nil }

func (accountProvider) Accounts(context.Context) iter.Seq2[Account, error] {
	return func(yield func(Account, error) bool) { yield(Account{"acct_17", "pro"}, nil) }
}

// A client that keeps accounts in line, until it is stopped.
func Example_account() {
	pool, temporal, prefix := openStack()
	if err := delta.Migrate(ctx, pool); err != nil {
		panic(err)
	}

	controllers := delta.NewControllers()
	delta.AddController(controllers, AccountController{})
	client, err := delta.NewClient(pool, &delta.Config{
		Controllers: controllers,
		Temporal:    temporal, WorkflowIDPrefix: prefix, // by default Temporal's environment variables, and "delta"
	})
	if err != nil {
		panic(err)
	}
	if err := client.Start(ctx); err != nil {
		panic(err)
	}
	defer client.Stop(ctx)

	// Inform only writes the row. Sync also waits for the outcome.
	row, err := client.Sync(ctx, Account{Number: "acct_17", Plan: "pro"}, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(row.ObjectID, row.State)
	// Output: acct_17 synced
}
