package delta_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// The API that users of Delta on River call exists here, with the same names and types.
var (
	_ func(*delta.Controllers, delta.Controller[*User])                                                                        = delta.AddController[*User]
	_ func(*delta.Controllers, delta.Controller[*User]) error                                                                  = delta.AddControllerSafely[*User]
	_ func() *delta.Controllers                                                                                                = delta.NewControllers
	_ func(*pgxpool.Pool, *delta.Config) (*delta.Client, error)                                                                = delta.NewClient
	_ func(context.Context) *delta.Client                                                                                      = delta.ClientFromContext
	_ func(context.Context) (*delta.Client, error)                                                                             = delta.ClientFromContextSafely
	_ func(error) error                                                                                                        = delta.ResourceDelete
	_ func(*delta.Client, context.Context, delta.Object, *delta.InformOpts) (*deltatype.ObjectInformResult, error)             = (*delta.Client).Inform
	_ func(*delta.Client, context.Context, pgx.Tx, delta.Object, *delta.InformOpts) (*deltatype.ObjectInformResult, error)     = (*delta.Client).InformTx
	_ func(*delta.Client, context.Context, delta.Object) (*deltatype.ResourceRow, error)                                       = (*delta.Client).Invalidate
	_ func(*delta.Client, context.Context, delta.ScheduleInformParams, *delta.InformOptions) error                             = (*delta.Client).ScheduleInform
	_ func(*delta.Client, context.Context) error                                                                               = (*delta.Client).Start
	_ func(*delta.Client, context.Context) error                                                                               = (*delta.Client).Stop
	_ func(*delta.Client, ...delta.EventCategory) (<-chan delta.Event, func())                                                 = (*delta.Client).Subscribe
	_ func(*delta.Client, *delta.SubscribeConfig) (<-chan delta.Event, func())                                                 = (*delta.Client).SubscribeConfig
	_ func(*delta.Client, context.Context, []delta.Object, *delta.InformOpts) ([]*deltatype.ObjectInformResult, error)         = (*delta.Client).InformMany
	_ func(*delta.Client, context.Context, pgx.Tx, []delta.Object, *delta.InformOpts) ([]*deltatype.ObjectInformResult, error) = (*delta.Client).InformManyTx
	_ func(context.Context, *pgxpool.Pool) error                                                                               = delta.Migrate

	_ delta.Worker[*User]        = (*UserController)(nil)
	_ delta.Informer[*User]      = (*UserController)(nil)
	_ delta.Controller[*User]    = (*UserController)(nil)
	_ delta.ComparableObject     = (*User)(nil)
	_ delta.ObjectWithCreatedAt  = (*User)(nil)
	_ delta.ObjectWithInformOpts = optioned{}
	_ delta.ObjectWithSettings   = (*User)(nil)
	_ error                      = (*delta.ResourceDeleteError)(nil)
	_ deltatype.Object           = (*User)(nil)
	_ []deltatype.ResourceState  = deltatype.ResourceStates()
	_ deltatype.ObjectInformParams
	_ deltatype.Namespace

	_ = delta.Config{
		Logger: slog.Default(), Controllers: delta.NewControllers(), Namespaces: map[string]delta.NamespaceConfig{},
		ResourceWorkTimeout: time.Minute, ControllerInformTimeout: -1, MaintenanceJobInterval: time.Minute,
		ResourceInformInterval: time.Hour, ResourceCleanerTimeout: time.Second, DeletedResourceRetentionPeriod: time.Hour,
		SyncedResourceRetentionPeriod: time.Hour, DegradedResourceRetentionPeriod: time.Hour,
		ResourceInformJitter: time.Minute, ResourceCleanerInterval: time.Minute, StuckScheduledThreshold: time.Hour, // of v0.4.0
	}
	_ = delta.NamespaceConfig{
		MaxWorkers: 1, ResourceExpiry: time.Hour, DeletedResourceRetentionPeriod: time.Hour,
		SyncedResourceRetentionPeriod: time.Hour, DegradedResourceRetentionPeriod: time.Hour,
	}
	_ = delta.ObjectSettings{Parallelism: 1, InformInterval: time.Hour}
	_ = delta.InformOpts{Namespace: "n", Metadata: []byte("{}"), MaxAttempts: 1, Tags: []string{"tag"}}
	_ = delta.InformOptions{Labels: map[string]string{}, After: new(time.Time), Limit: 1, OrderBy: "created_at DESC"}
	_ = delta.InformArgs[*User]{ResourceKind: "user", ProcessExisting: true, RunForeground: true, Options: &delta.InformOptions{}}
	_ = delta.ScheduleInformParams{ResourceKind: "user", ProcessExisting: true, RunForeground: true}
	_ = delta.SubscribeConfig{ChanSize: 1, Categories: []delta.EventCategory{}}
	_ = deltatype.ResourceRow{
		ID: 1, ObjectID: "id", ObjectKind: "user", Namespace: "n", EncodedObject: []byte("{}"), Hash: []byte{0}, Metadata: []byte("{}"), CreatedAt: time.Time{},
		SyncedAt: new(time.Time), Attempt: 1, MaxAttempts: 1, State: deltatype.ResourceStateSynced, Tags: []string{"tag"}, Errors: []deltatype.AttemptError{{
			At: time.Time{}, Attempt: 1, Error: "error", Trace: "trace",
		}},
	}
	_ = deltatype.ObjectInformResult{Resource: &deltatype.ResourceRow{}, AlreadyExists: true}
	_ = delta.Event{Resource: &deltatype.ResourceRow{}, EventCategory: "", Timestamp: time.Time{}}
)

func TestNamesAndValuesThatAreStoredOrCompared(t *testing.T) {
	t.Parallel()
	require.Equal(t, "default", delta.NamespaceDefault)
	require.EqualValues(t, "object_synced", delta.EventCategoryObjectSynced)
	require.EqualValues(t, "object_failed", delta.EventCategoryObjectFailed)
	require.EqualValues(t, "object_deleted", delta.EventCategoryObjectDeleted)
	require.Equal(t, []deltatype.ResourceState{
		"scheduled", "pending", "synced", "failed", "degraded", "expired", "deleted", "unknown",
	}, deltatype.ResourceStates())
	c := delta.Config{}.WithDefaults()
	require.Equal(t, []time.Duration{
		time.Minute, time.Minute, time.Minute, time.Hour, 30 * time.Second, 24 * time.Hour, 24 * time.Hour, 24 * time.Hour,
	}, []time.Duration{
		c.ResourceWorkTimeout, c.ControllerInformTimeout, c.MaintenanceJobInterval, c.ResourceInformInterval, c.ResourceCleanerTimeout,
		c.DeletedResourceRetentionPeriod, c.SyncedResourceRetentionPeriod, c.DegradedResourceRetentionPeriod,
	})
}
