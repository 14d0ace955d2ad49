package delta_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// payment1 is a kind whose type changes between two deploys: amount becomes a number.
type payment1[M batchSized] struct {
	Key    string
	Amount string
}

type payment2[M batchSized] struct {
	Key    string
	Amount int
}

func paymentSettings[M batchSized]() delta.ObjectSettings {
	var m M
	return delta.ObjectSettings{InformInterval: -1, BatchSize: m.batchSize(), Parallelism: 10}
}

func (p payment1[M]) ID() string                     { return p.Key }
func (p payment1[M]) Kind() string                   { return "payment" }
func (p payment1[M]) Settings() delta.ObjectSettings { return paymentSettings[M]() }
func (p payment2[M]) ID() string                     { return p.Key }
func (p payment2[M]) Kind() string                   { return "payment" }
func (p payment2[M]) Settings() delta.ObjectSettings { return paymentSettings[M]() }

// Compare is never called for an object that does not decode: the hash decides.
func (p payment2[M]) Compare(other delta.Object) (int, bool) {
	return -1, other.(payment2[M]) == p
}

// payment3 has a version, and other names in its JSON, which decode into an older type without an error.
type payment3[M batchSized] struct {
	Ref   string `json:"id"`
	Cents int    `json:"cents"`
}

func (p payment3[M]) ID() string                     { return p.Ref }
func (p payment3[M]) Kind() string                   { return "payment" }
func (p payment3[M]) Version() int                   { return 3 }
func (p payment3[M]) Settings() delta.ObjectSettings { return paymentSettings[M]() }

// upgrading upgrades older payments to version 3.
type upgrading[M batchSized] struct {
	controller[payment3[M]]
}

func (upgrading[M]) Upgrade(version int, object []byte) ([]byte, error) {
	var old struct {
		Key    string
		Amount json.Number
	}
	if err := json.Unmarshal(object, &old); err != nil || version != 0 {
		return nil, fmt.Errorf("version %d: %w", version, err)
	}
	if old.Amount == "13" {
		return nil, errors.New("thirteen is not upgraded")
	}
	return fmt.Appendf(nil, `{"id": %q, "cents": %s00}`, old.Key, old.Amount), nil
}

// isWaitingFor matches a row that waits for a worker that can decode it, with a reason.
func isWaitingFor(why string) func(*deltatype.ResourceRow) bool {
	return func(r *deltatype.ResourceRow) bool {
		n := len(r.Errors)
		return r.State == deltatype.ResourceStateScheduled && r.Attempt == 0 && n > 0 && r.Errors[n-1].Attempt == 0 &&
			strings.Contains(r.Errors[n-1].Error, why)
	}
}

func TestAnUndecodableObjectWaitsForAnotherWorker(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	inBothModes(t, testUndecodable[single], testUndecodable[batches])
}

func testUndecodable[M batchSized](t *testing.T) {
	h := newHarness(t)
	old := h.start(h.config(with(&controller[payment1[M]]{})))
	for _, key := range []string{"a", "b", "c"} {
		_, err := old.Sync(t.Context(), payment1[M]{key, "12.50"}, &delta.InformOpts{MaxAttempts: 1})
		require.NoError(t, err)
	}
	require.NoError(t, old.Stop(t.Context()))

	// A newer worker cannot decode it, which costs no attempt, although there is only one.
	newer := h.start(h.config(with(&controller[payment2[M]]{work: func(_ context.Context, r *delta.Resource[payment2[M]]) error {
		assert.Equal(t, payment2[M]{"b", 1250}, r.Object)
		return nil
	}})))
	for _, key := range []string{"a", "b", "c"} {
		_, err := newer.Invalidate(t.Context(), payment2[M]{Key: key})
		require.NoError(t, err)
	}
	row := h.eventually("payment", "a", isWaitingFor("does not decode into delta_test.payment2"))
	again := row.DueAt
	row = h.eventually("payment", "a", func(r *deltatype.ResourceRow) bool { return isWaitingFor("")(r) && r.DueAt.After(*again) })
	require.Len(t, row.Errors, 1, "the same error is stored once")
	require.True(t, row.DueAt.After(*row.AttemptedAt), "the object is offered to workers again later")
	h.eventually("payment", "b", isWaitingFor("does not decode"))
	h.eventually("payment", "c", isWaitingFor("does not decode"))
	// A row is not counted while it is offered to a worker, so wait until all three are counted.
	until(t, func() bool { return countUndecodable(t, newer) == 3 }, "all three are counted")

	// A new inform replaces an undecodable object, and Delete deletes it.
	row, err := newer.Sync(t.Context(), payment2[M]{"b", 1250}, nil)
	require.NoError(t, err)
	require.Equal(t, 1, row.Attempt)
	_, err = newer.Delete(t.Context(), "payment", "c")
	require.NoError(t, err)

	// The older worker is back, and can decode the remaining object.
	require.NoError(t, newer.Stop(t.Context()))
	h.start(h.config(with(&controller[payment1[M]]{})))
	row = h.eventually("payment", "a", inState(deltatype.ResourceStateSynced))
	require.Equal(t, 1, row.Attempt)
	require.Zero(t, countUndecodable(t, newer))
}

// countUndecodable returns how many payments wait for a worker that can decode them.
func countUndecodable(t *testing.T, c *delta.Client) int64 {
	t.Helper()
	kinds, err := c.Kinds(t.Context())
	require.NoError(t, err)
	i := slices.IndexFunc(kinds, func(k delta.KindStatus) bool { return k.Kind == "payment" })
	return kinds[i].Undecodable
}

func TestObjectsOfAnOlderVersionAreUpgradedAndOfANewerOneLeft(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	inBothModes(t, testVersions[single], testVersions[batches])
}

func testVersions[M batchSized](t *testing.T) {
	h := newHarness(t)
	var seen sync.Map
	upgrade := &upgrading[M]{controller[payment3[M]]{work: func(_ context.Context, r *delta.Resource[payment3[M]]) error {
		seen.Store(r.Object.Ref, r.Object.Cents)
		return nil
	}}}
	c := h.start(h.config(func(cs *delta.Controllers) { delta.AddController(cs, upgrade) }))
	old := h.client(&delta.Config{})
	for key, amount := range map[string]int{"a": 12, "unlucky": 13} {
		_, err := old.Inform(t.Context(), payment2[M]{key, amount}, nil)
		require.NoError(t, err)
	}
	row := h.eventually("payment", "a", inState(deltatype.ResourceStateSynced))
	require.Zero(t, row.ObjectVersion, "the row keeps the informed object")
	cents, _ := seen.Load("a")
	require.Equal(t, 1200, cents)
	h.eventually("payment", "unlucky", isWaitingFor("upgrading the stored object from version 0 to 3: thirteen is not upgraded"))
	row, err := c.Sync(t.Context(), payment3[M]{"a", 1300}, nil)
	require.NoError(t, err)
	require.Equal(t, 3, row.ObjectVersion)
	require.NoError(t, c.Stop(t.Context()))

	// An older worker leaves it, although the JSON decodes into a payment without an id.
	older := h.start(h.config(with(&controller[payment2[M]]{work: func(_ context.Context, r *delta.Resource[payment2[M]]) error {
		assert.Equal(t, "unlucky", r.Object.Key)
		return nil
	}})))
	_, err = older.Invalidate(t.Context(), payment2[M]{Key: "a"})
	require.NoError(t, err)
	h.eventually("payment", "a", isWaitingFor("is of version 3 of its type, and delta_test.payment2"))
	h.eventually("payment", "unlucky", inState(deltatype.ResourceStateSynced))
	h.exec("UPDATE delta_resource SET object_version = 0, due_at = now(), dispatch_at = now() WHERE object_id = 'a'")
	h.eventually("payment", "a", isWaitingFor(`with the id ""`))
}

// In a rolling deploy, workers of both versions run, and each resource finds one that can decode it.
func TestWorkersLeaveObjectsOfOtherVersionsToEachOther(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	inBothModes(t, testRollingDeploy[single], testRollingDeploy[batches])
}

func testRollingDeploy[M batchSized](t *testing.T) {
	h := newHarness(t)
	h.start(h.config(with(&controller[payment1[M]]{work: func(_ context.Context, r *delta.Resource[payment1[M]]) error {
		assert.Equal(t, "old", r.Object.Amount)
		return nil
	}})))
	h.start(h.config(with(&controller[payment2[M]]{work: func(_ context.Context, r *delta.Resource[payment2[M]]) error {
		assert.Equal(t, 2, r.Object.Amount)
		return nil
	}})))
	const many = 30
	var objects []delta.Object
	for i := range many {
		objects = append(objects, payment1[M]{fmt.Sprintf("o%02d", i), "old"}, payment2[M]{fmt.Sprintf("n%02d", i), 2})
	}
	_, err := h.client(&delta.Config{}).InformMany(t.Context(), objects, &delta.InformOpts{MaxAttempts: 1})
	require.NoError(t, err)
	for _, o := range objects {
		row := h.eventually("payment", o.ID(), inState(deltatype.ResourceStateSynced))
		require.Equal(t, 1, row.Attempt)
	}
}

// loose has a value of any type, and compares itself by it.
type loose[M batchSized] struct {
	Key   string
	Value any
}

func (l loose[M]) ID() string                     { return l.Key }
func (l loose[M]) Kind() string                   { return "loose" }
func (l loose[M]) Settings() delta.ObjectSettings { return paymentSettings[M]() }

func TestNumbersInAnyKeepTheirDigits(t *testing.T) {
	t.Parallel()
	inBothModes(t, testDigits[single], testDigits[batches])
}

func testDigits[M batchSized](t *testing.T) {
	h := newHarness(t)
	got := make(chan any, 1)
	c := h.start(h.config(with(&controller[loose[M]]{work: func(_ context.Context, r *delta.Resource[loose[M]]) error {
		got <- r.Object.Value
		return nil
	}})))
	const number = "12345678901234567890.12345678901234567890"
	_, err := c.Sync(t.Context(), loose[M]{"a", map[string]any{"n": json.Number(number), "id": uint64(1<<63 + 1)}}, nil)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"n": json.Number(number), "id": json.Number("9223372036854775809")}, <-got)
}
