// Package messagedb is a client of [Message DB], the message store in Postgres, on pgx.
//
//	client, err := messagedb.NewClient(pool, nil)
//	if err != nil {
//		log.Fatal(err)
//	}
//	command := messagedb.ProposedMessage{Type: "OpenAccount", Data: OpenAccount{Owner: "ann"}}
//	if _, err := client.WriteMessage(ctx, "account:command-123", command, messagedb.AnyVersion); err != nil {
//		log.Fatal(err)
//	}
//
//	consumer, err := client.NewConsumer(messagedb.ConsumerConfig{
//		Category:    "account:command",
//		Identifier:  "opener",
//	})
//	if err != nil {
//		log.Fatal(err)
//	}
//	messagedb.Handle(consumer, "OpenAccount", func(ctx context.Context, data OpenAccount, m *messagedb.Message) error {
//		fmt.Println("opening the account of", data.Owner)
//		return nil
//	})
//	if err := consumer.Run(ctx); err != nil {
//		log.Fatal(err)
//	}
//
// It writes and reads messages, subscribes to streams and categories, consumes categories with a position that is kept in the store ([Consumer]), folds streams
// into values ([Entity]), and projects categories into tables ([Projector]).
//
// # Streams and categories
//
// A message is in one stream, at a position that counts from 0, and in the category that the stream's name begins with, at a
// global position that counts from 1 with gaps:
//
//	account:command+position-b1c2+d3
//	└──────── category ─────┘ └ id ┘
//	└entity┘└──── types ────┘ └┘ cardinal id
//
// See [StreamName]. A [Client] works with the schema of Message DB 1.3, as its installer makes it, or with the compatible one
// that [Migrate] makes. The schema need not be on the search path. Each call is one round trip and one statement, of which
// each connection prepares a fixed number; [Client.InTx] makes the same calls in a transaction of the caller's.
//
// # What is promised
//
//   - A write is all of its messages or none. Of concurrent writes with the same expected version one succeeds, and the others
//     get a [*VersionConflictError]; with [Idempotent] it can be repeated.
//   - A subscription delivers each message of its category once, in order, and skips none: writes hold a lock of the category
//     from before they take their position until they are visible. A raw INSERT takes no lock and has no such promise.
//   - A [Consumer] handles each message at least once. After the death of its process, no more than its PositionInterval are
//     handled again, and the one before them.
//   - Writes of a [Projector]'s handler in its transaction have effect exactly once, whichever process dies, and however many projectors of one name run.
//   - An [Entity] returns the current value of a stream, and its version. Values in memory or in snapshots are never taken for the truth: the last
//     known message must still be there.
//   - After [Subscription.Stop] has returned, no further message is delivered; one may still be in its handler.
//
// # Errors
//
// Bad input is an [*InvalidError], returned before anything is sent as far as the client can know. The server's errors are typed
// where they mean something: [*VersionConflictError], [*DuplicateIDError], [*ConditionDisabledError], [*NotInstalledError].
// [IsTransient] reports whether a call can be repeated.
//
// [Message DB]: https://github.com/message-db/message-db
package messagedb
