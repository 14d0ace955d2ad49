// Package sinks delivers messages to systems outside of Postgres: at least once, in the order of their keys.
//
//	relay, err := sinks.NewRelay(sinks.Config{Source: sinks.NewStreamSource(stream, sinks.StreamConfig{}), Sink: sink})
//	if err != nil {
//		return err
//	}
//	return relay.Run(ctx)
//
// What always holds:
//   - A [Source] is confirmed up to a message only when that message and all before it were delivered, filtered or set aside. If the process
//     dies, messages after the last confirmed one come again: a receiver recognizes them by [Message.ID].
//   - Messages of one key are delivered one after another, each only when the one before it was. A message that fails holds back its own key
//     and no other, until [Config.Window] messages are read and not confirmed.
//   - A message that cannot be delivered is never dropped silently: [Config.Undeliverable] decides, and the decision is logged and counted.
//
// Systems that need a client library are modules of their own below this folder, so that a program links only what it uses.
package sinks
