package delta_test

import (
	"fmt"

	"github.com/chariot-giving/delta/delta"
)

// Payment is of no use before its account exists.
type Payment struct {
	PaymentID, AccountID string
}

func (p Payment) ID() string   { return p.PaymentID }
func (p Payment) Kind() string { return "payment" }
func (p Payment) Parents() []delta.Ref {
	return []delta.Ref{{Kind: "account", ObjectID: p.AccountID}}
}

// A payment waits for its account.
func ExampleObjectWithParents() {
	deltaClient, _ := delta.NewClient(pool, config)
	// The account is not there yet, or not synced: the payment waits.
	_, err := deltaClient.Inform(ctx, Payment{PaymentID: "pay_5TqX", AccountID: "acct_9fB2"}, nil)
	if err != nil {
		panic(err)
	}
	explained, err := deltaClient.Explain(ctx, "payment", "pay_5TqX")
	if err != nil {
		panic(err)
	}
	// It waits for its parent account/acct_9fB2, which is not there: it was not informed yet, or its row was removed.
	fmt.Println(explained.Reasons[0].Text)
}
