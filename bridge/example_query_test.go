package bridge_test

import (
	"context"
	"fmt"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/delta"
)

// invoice is a row of the query below.
type invoice struct {
	Number   string
	Customer string
	Total    string
}

func (i invoice) ID() string   { return i.Number }
func (i invoice) Kind() string { return "invoice" }

type invoices struct{ delta.WorkerDefaults[invoice] }

// Work is called for each invoice that is new or changed, and no draft.
func (invoices) Work(_ context.Context, r *delta.Resource[invoice]) error {
	fmt.Printf("the provider is told that %s owes %s\n", r.Object.Customer, r.Object.Total)
	return nil
}

// addInvoices has the invoices be rows of a table, with the names of their customers, but for drafts.
func addInvoices(controllers *delta.Controllers) {
	bridge.Table(controllers, invoices{}, bridge.TableConfig[invoice]{
		Table: "invoice",
		Query: `
			SELECT i.number, c.name AS customer, i.net + i.tax AS total
			FROM invoice i JOIN customer c ON c.id = i.customer_id
			WHERE i.state <> 'draft'`,
	})
}

var _ = addInvoices
