package delta_test

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/chariot-giving/delta/delta"
)

// AccountInvoice is an invoice of one of the provider's accounts.
type AccountInvoice struct {
	InvoiceID string `json:"id"`
	Account   string `json:"account"`
}

func (i AccountInvoice) ID() string    { return i.InvoiceID }
func (i AccountInvoice) Kind() string  { return "account_invoice" }
func (i AccountInvoice) Shard() string { return i.Account }

type accountAPI struct{}

func (accountAPI) Accounts(context.Context) ([]string, error) {
	return []string{"acct_9s2", "acct_4kd"}, nil
}

func (accountAPI) Invoices(_ context.Context, account string, _ *time.Time) iter.Seq2[AccountInvoice, error] {
	return func(yield func(AccountInvoice, error) bool) { yield(AccountInvoice{"inv_" + account, account}, nil) }
}

// InvoicesByAccount lists the invoices of each account by themselves.
type InvoicesByAccount struct {
	delta.WorkerDefaults[AccountInvoice]
	delta.ListerDefaults[AccountInvoice]
	api accountAPI
}

func (c *InvoicesByAccount) Work(context.Context, *delta.Resource[AccountInvoice]) error { return nil }

func (c *InvoicesByAccount) Shards(ctx context.Context) ([]string, error) { return c.api.Accounts(ctx) }

func (c *InvoicesByAccount) List(ctx context.Context, opts *delta.InformOptions) iter.Seq2[AccountInvoice, error] {
	return c.api.Invoices(ctx, opts.Shard, opts.After)
}

// A controller whose upstream is listed account by account.
func ExampleSharder() {
	controllers := delta.NewControllers()
	err := delta.AddControllerSafely(controllers, &InvoicesByAccount{})
	fmt.Println(err)
	// Output: <nil>
}
