// Package bridge feeds Delta from Postgres tables, Message DB categories and webhooks: the desired state comes from the place where it is already kept.
//
//	// customer is a row of the table customer: each field is read from the column of its name.
//	type customer struct {
//		CustomerID string
//		Email      *string
//		Plan       string
//	}
//
//	func (c customer) ID() string   { return c.CustomerID }
//	func (c customer) Kind() string { return "customer" }
//
//	type customers struct{ delta.WorkerDefaults[customer] }
//
//	// Work is called for each row that is new or changed.
//	func (customers) Work(_ context.Context, r *delta.Resource[customer]) error {
//		fmt.Printf("the provider is told that %s has the plan %s\n", r.Object.CustomerID, r.Object.Plan)
//		return nil
//	}
//
//	controllers := delta.NewControllers()
//	bridge.Table(controllers, customers{}, bridge.TableConfig[customer]{Table: "customer"})
//
// With that line, Work is called for each new or changed row of the table, whichever program wrote it. When the row is deleted, so is its resource, and Finalize
// is called if the controller has it.
//
// # What always holds
//
//   - A position is confirmed to the source only after the transaction with its effects was committed: no change is lost, whichever process dies.
//   - A change may come twice. It then changes nothing, because its resource has the object already.
//   - A row or message that cannot be a resource is refused, kept and shown; the others go on.
//
// The [manual] has settings, limits and faults.
//
// [manual]: https://github.com/chariot-giving/delta/blob/main/docs/bridge.md
package bridge
