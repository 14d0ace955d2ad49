// Package deltaotel gives Delta's metrics and spans to OpenTelemetry. It is a module of its own, so that a program without
// it links nothing of OpenTelemetry:
//
//	telemetry, err := deltaotel.New(nil) // the global providers
//	...
//	client, err := delta.NewClient(pool, &delta.Config{Controllers: controllers, Telemetry: telemetry})
//
// The span of an inform travels with the object: the first call of Work for it has a span that is its child, in the same trace, whatever process
// and workflow it is in. Further attempts have spans with links to it. [New] lists the attributes of spans.
//
// Metrics are in seconds. Their labels are kinds, namespaces, outcomes and the like, and never ids. docs/metrics.md in Delta's repository has a table
// of them, with the alerts that use them.
//
// [ObserveConsumer], [ObserveSubscription], [ObserveMessages] and [ObserveStream] have metrics of the packages messagedb and cdc collected, also in
// programs without a client of Delta.
package deltaotel
