// Package bridge has sources for Delta: desired state from where it is.
//
//	type account struct{ Name, Plan string }
//
//	func (a account) ID() string { return a.Name }
//	func (account) Kind() string { return "account" }
//
//	bridge.Table(controllers, accounts{}, bridge.TableConfig[account]{Table: "account"})
//
// With that line, `Work` of accounts is called for each row of the table account that is new or changed, from whichever program, and its resource is deleted, and
// finalized, when the row is. Positions are kept, and confirmed after what they have led to was committed: nothing is lost by the death of any process.
package bridge
