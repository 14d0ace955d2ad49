// Package activities is not part of Delta's public API, and semantic versioning does not cover it: it can be imported
// only because Delta's other packages need it, and may change in any release. Registered names and the JSON of inputs
// and results do not change after the first release, because Temporal's histories contain them.
//
// It does all input and output of the workflows: it claims rows, calls the user's controller through [Handler], and
// writes the outcomes.
//
// The life of a resource:
//
//   - activities.go: Activities, its settings, and the registered activities. handler.go is the user's controller.
//   - attempt.go: Attempt, one attempt of a single resource. local.go runs it as a local activity, step.go has its
//     result.
//   - batch.go: AttemptBatch, one attempt of each member of a batch. feeder.go claims members and calls Work,
//     gather.go collects outcomes for one write.
//   - execution.go: an execution of either activity: it claims rows and calls Work for them. claims.go renews its
//     claim.
//   - work.go: the call of user code. slots.go, batch_slots.go, rate.go and keys.go limit calls, context.go bounds
//     them, snooze.go delays them.
//   - outcome.go: writes outcomes. temporal_failure.go describes failures to Temporal, close_claims.go closes claims that
//     outlive their outcome, complete_tx.go writes the outcome in the user's transaction.
//   - retention.go: EndRetention and EndBatchRetention: expiry, one more attempt, or removal.
//   - command.go: Command. parents.go: resources that wait for a parent. undecodable.go: objects that do not decode.
//
// Listings:
//
//   - inform.go: InformPass, one pass of an informer. pass.go takes the listing, page.go writes pages, cursor.go
//     moves the cursor, shards.go plans the passes of shards.
//   - listing.go: deletes what a complete listing left out. listing_claim.go fences that, withheld.go asks an
//     operator first.
//   - refused.go: objects that cannot be taken. stale.go: objects older than the stored ones.
//   - await.go: AwaitSettled, for runs in the foreground.
//   - history.go, report.go: what a pass leaves for people.
//   - source.go, feed.go, source_report.go: RunSource.
//
// For both: observe.go and log.go report, retry.go retries statements, heartbeat.go and activity_info.go talk to
// Temporal, and rehearse.go with rehearse_listing.go run a controller without rows, for tests.
package activities
