package bridge_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/messagedb"
)

// subscriber is folded from the messages of a stream of the category subscriber.
type subscriber struct {
	Number string
	Plan   string
	Left   bool
}

func (s subscriber) ID() string   { return s.Number }
func (s subscriber) Kind() string { return "subscriber" }

type subscribed struct{ Plan string }

type subscribers struct {
	delta.WorkerDefaults[subscriber]
}

// Work is called when the messages of a stream make another object than before.
func (subscribers) Work(_ context.Context, r *delta.Resource[subscriber]) error {
	fmt.Printf("the provider is told that %s has the plan %s\n", r.Object.Number, r.Object.Plan)
	return nil
}

func addSubscribers(controllers *delta.Controllers, pool *pgxpool.Pool) error {
	store, err := messagedb.NewClient(pool, nil)
	if err != nil {
		return err
	}
	entity, err := messagedb.NewEntity(store, messagedb.EntityConfig[subscriber]{Category: "subscriber"})
	if err != nil {
		return err
	}
	messagedb.Fold(entity, "Subscribed", func(s *subscriber, data subscribed, m *messagedb.Message) error {
		s.Number, _ = m.Stream.ID()
		s.Plan, s.Left = data.Plan, false
		return nil
	})
	messagedb.Fold(entity, "Left", func(s *subscriber, _ struct{}, _ *messagedb.Message) error {
		s.Left = true
		return nil
	})
	return bridge.CategorySafely(controllers, subscribers{}, bridge.CategoryConfig[subscriber]{
		Client: store, Entity: entity, IsGone: func(s subscriber) bool { return s.Left },
	})
}

var _ = addSubscribers
