// Package sinks delivers messages to systems outside of Postgres: at least once, in the order of their keys.
//
//	stream, err := cdc.Open(ctx, cdc.Config{Conn: database, Slot: "orders", Publications: []string{"orders"}, OnlyAcknowledged: true})
//	if err != nil {
//		return err
//	}
//	defer stream.Close()
//	sink, err := webhook.New(webhook.Config{URL: "https://example.com/hooks", Secrets: []string{secret}})
//	if err != nil {
//		return err
//	}
//	relay, err := sinks.NewRelay(sinks.Config{Source: sinks.NewStreamSource(stream, sinks.StreamConfig{Name: "orders"}), Sink: sink})
//	if err != nil {
//		return err
//	}
//	return relay.Run(ctx)
//
// # What always holds
//
//   - A [Source] is confirmed up to a message only when that message and all before it were delivered, filtered or set aside. If the process
//     dies, messages after the last confirmed one come again: a receiver recognizes them by [Message.ID].
//   - Messages of one key are delivered one after another, each only after the one before it was. A failing message holds back its own key
//     and no other, until [Config.Window] messages are read and not confirmed.
//   - A message that cannot be delivered is never dropped silently: [Config.Undeliverable] decides, and the decision is logged and counted.
//
// Systems that need a client library are modules of their own below this folder, so that a program links only the libraries that it uses. The [manual] has all of them.
//
// [manual]: https://github.com/chariot-giving/delta/blob/main/docs/sinks.md
package sinks
