package migrations_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// riverUser is an object with JSON, as the original hashed it, that is neither in the canonical form nor as jsonb writes it.
type riverUser struct {
	Zone  string            `json:"zone"`
	Name  string            `json:"name"`
	Big   float64           `json:"big"`
	Small float64           `json:"small"`
	HTML  string            `json:"html"`
	More  map[string]string `json:"more"`
}

func (u riverUser) ID() string   { return u.Name }
func (u riverUser) Kind() string { return "user" }
func (u riverUser) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 4, InformInterval: -1}
}

func newRiverUser(name string) riverUser {
	return riverUser{Zone: "z", Name: name, Big: 1e21, Small: 1.5e-9, HTML: "<a&\u2028ü>", More: map[string]string{"b": "2", "a": "1"}}
}

// riverTeam compares itself.
type riverTeam struct{ riverUser }

func (riverTeam) Kind() string { return "team" }

func (u riverTeam) Compare(other delta.Object) (int, bool) {
	o, ok := other.(riverTeam)
	return len(u.Zone) - len(o.Zone), ok
}

// riverController counts the calls of Work for each object, and lists all objects.
type riverController[T delta.Object] struct {
	delta.WorkerDefaults[T]
	delta.InformerDefaults[T]
	list []T

	mu     sync.Mutex
	worked map[string]int
}

func (c *riverController[T]) Work(_ context.Context, r *delta.Resource[T]) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.worked == nil {
		c.worked = map[string]int{}
	}
	c.worked[r.Object.ID()]++
	return nil
}

func (c *riverController[T]) Inform(ctx context.Context, _ *delta.InformOptions) (<-chan T, error) {
	out := make(chan T)
	go func() {
		defer close(out)
		for _, o := range c.list {
			select {
			case out <- o:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func (c *riverController[T]) counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := map[string]int{}
	for id, n := range c.worked {
		counts[id] = n
	}
	return counts
}

// insertOriginal writes a row for an object like the original.
func insertOriginal(t *testing.T, pool *pgxpool.Pool, o delta.Object, state, namespace string, synced *time.Time) {
	t.Helper()
	encoded, err := json.Marshal(o)
	require.NoError(t, err)
	hash := sha256.Sum256(encoded)
	_, err = pool.Exec(t.Context(), `
		INSERT INTO delta_resource (object_id, kind, namespace, state, attempt, max_attempts, attempted_at, synced_at, object, hash)
		VALUES ($1, $2, $3, $4::text::delta_resource_state, CASE WHEN $4::text = 'scheduled' THEN 0 ELSE 1 END, 10, now() - interval '1 hour', $5, $6, $7)`,
		o.ID(), o.Kind(), namespace, state, synced, encoded, hash[:])
	require.NoError(t, err)
}

func TestAfterTheTakeoverOnlyWhatIsDueIsWorked(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	pool := originalIn(t, env, `INSERT INTO delta_namespace (name, updated_at, expiry_ttl) VALUES ('quick', now(), 600), ('still', now(), 0)`)
	minute, hour := timeAgo(time.Minute), timeAgo(time.Hour)
	users, teams := &riverController[riverUser]{}, &riverController[riverTeam]{}
	for _, r := range []struct {
		id, state, namespace string
		synced               *time.Time
	}{
		{"synced-1", "synced", "default", hour},
		{"synced-2", "synced", "default", hour},
		{"synced-3", "synced", "default", hour},
		{"synced-quick", "synced", "quick", minute},
		{"changed", "synced", "default", hour},
		{"deleted", "deleted", "default", hour},
		{"due-scheduled", "scheduled", "default", nil},
		{"due-pending", "pending", "default", nil},
		{"due-failed", "failed", "default", nil},
		{"due-expired", "expired", "default", hour},
		{"due-quick", "synced", "quick", hour},
	} {
		u := newRiverUser(r.id)
		users.list = append(users.list, u)
		insertOriginal(t, pool, u, r.state, r.namespace, r.synced)
	}
	// Rows settled for longer than 24 hours: one in a namespace that keeps rows for ever, and one in another.
	insertOriginal(t, pool, newRiverUser("old-kept"), "synced", "still", timeAgo(30*time.Hour))
	insertOriginal(t, pool, newRiverUser("old-removed"), "synced", "default", timeAgo(30*time.Hour))
	team := riverTeam{newRiverUser("synced")}
	insertOriginal(t, pool, team, "synced", "default", hour)
	team.HTML = "not looked at by Compare"
	teams.list = []riverTeam{team}
	require.NoError(t, delta.Migrate(t.Context(), pool))

	controllers := delta.NewControllers()
	delta.AddController(controllers, users)
	delta.AddController(controllers, teams)
	client, err := delta.NewClient(pool, &delta.Config{
		Controllers: controllers, Temporal: env.Temporal, TemporalNamespace: env.TemporalNamespace, WorkflowIDPrefix: env.Prefix,
		Namespaces: map[string]delta.NamespaceConfig{
			"quick": {MaxWorkers: 4, ResourceExpiry: 10 * time.Minute},
			"still": {MaxWorkers: 4, SyncedResourceRetentionPeriod: -1},
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	rest := atRest(t, client)
	require.NoError(t, client.Start(context.Background()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, client.Stop(ctx))
	})

	due := map[string]int{"due-scheduled": 1, "due-pending": 1, "due-failed": 1, "due-expired": 1, "due-quick": 1}
	require.Eventually(t, func() bool {
		rows, err := client.List(t.Context(), delta.Filter{Kinds: []string{"user"}, States: []deltatype.ResourceState{deltatype.ResourceStateSynced}}, delta.Page{})
		return err == nil && len(users.counts()) >= len(due) && len(rows) == 11
	}, 2*time.Minute, 20*time.Millisecond)
	require.Equal(t, due, users.counts())

	require.Eventually(t, func() bool {
		kept, err := client.Get(t.Context(), "user", "old-kept")
		return err == nil && kept.DueAt == nil
	}, 2*time.Minute, 20*time.Millisecond, "nothing is to happen to it")

	// Informing the same objects in any way syncs nothing again.
	var all []delta.Object
	for _, u := range users.list {
		if u.Name == "deleted" {
			continue // an explicit inform brings it back
		}
		all = append(all, u)
		result, err := client.Inform(t.Context(), u, nil)
		require.NoError(t, err)
		require.False(t, result.Scheduled, u.Name)
		require.True(t, result.AlreadyExists)
	}
	results, err := client.InformMany(t.Context(), all, nil)
	require.NoError(t, err)
	for _, r := range results {
		require.False(t, r.Scheduled, r.Resource.ObjectID)
	}
	for kind, listed := range map[string]int{"user": len(users.list), "team": 1} {
		run, err := client.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: kind}, nil)
		require.NoError(t, err)
		require.Equal(t, listed, run.Listed)
		require.Zero(t, run.Scheduled)
	}

	// A changed object is synced.
	changed := newRiverUser("changed")
	changed.Big = 1e21 + 1e6
	result, err := client.Inform(t.Context(), changed, nil)
	require.NoError(t, err)
	require.True(t, result.Scheduled)
	require.Eventually(t, func() bool {
		row, err := client.Get(t.Context(), "user", "changed")
		return err == nil && row.State == deltatype.ResourceStateSynced && row.SyncCount == 2
	}, 2*time.Minute, 20*time.Millisecond)
	due["changed"] = 1
	require.Equal(t, due, users.counts())
	require.Empty(t, teams.counts())
	after := atRest(t, client)
	delete(rest, "user/changed")
	require.NotNil(t, after["user/deleted"].ListedAt, "it is kept for as long as it is listed")
	after["user/deleted"].ListedAt = nil
	for id, row := range rest {
		require.Equal(t, row, after[id], id)
	}
	require.Len(t, rest, 6)
}

// atRest returns the rows that are synced or deleted and not due, by kind and id.
func atRest(t *testing.T, client *delta.Client) map[string]*deltatype.ResourceRow {
	t.Helper()
	rows, err := client.List(t.Context(), delta.Filter{}, delta.Page{})
	require.NoError(t, err)
	rest := map[string]*deltatype.ResourceRow{}
	for _, r := range rows {
		if r.DueAt != nil && r.DueAt.After(time.Now()) {
			rest[r.ObjectKind+"/"+r.ObjectID] = r
		}
	}
	return rest
}
