package deltatest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// weighed has version 2. Version 1 had a weight in kilograms.
type weighed struct {
	Number string
	Grams  int
}

func (w weighed) ID() string   { return w.Number }
func (w weighed) Kind() string { return "weighed" }

func (w weighed) Version() int { return 2 }

type scales struct {
	delta.WorkerDefaults[weighed]
	delta.NoInformer[weighed]
}

func (*scales) Work(_ context.Context, r *delta.Resource[weighed]) error {
	if r.Object.Grams != 3000 {
		return fmt.Errorf("%d grams", r.Object.Grams)
	}
	return nil
}

func (*scales) Upgrade(version int, object []byte) ([]byte, error) {
	if version != 1 {
		return nil, fmt.Errorf("there was no version %d", version)
	}
	var old struct {
		Number    string
		Kilograms int
	}
	if err := json.Unmarshal(object, &old); err != nil {
		return nil, err
	}
	return json.Marshal(weighed{old.Number, old.Kilograms * 1000})
}

func TestWorkGetsObjectsOfAnOlderType(t *testing.T) {
	t.Parallel()
	work := func(stored *deltatest.Stored) *deltatest.Outcome[weighed] {
		o, err := deltatest.Work(t.Context(), &scales{}, weighed{Number: "1", Grams: 3000}, &deltatest.WorkOpts{Stored: stored, Attempt: 2, Now: noon})
		require.NoError(t, err)
		return o
	}
	o := work(nil)
	require.Equal(t, deltatype.ResourceStateSynced, o.State)
	require.Equal(t, 2, o.Row.ObjectVersion)

	o = work(&deltatest.Stored{Version: 1, Object: []byte(`{"Number":"1","Kilograms":3}`)})
	require.Equal(t, deltatype.ResourceStateSynced, o.State, o.Failure)
	require.Equal(t, weighed{"1", 3000}, o.Object)

	for stored, failure := range map[*deltatest.Stored]string{
		{Object: []byte(`{"Number":"1"}`)}:                         "upgrading the stored object from version 0 to 2: there was no version 0",
		{Version: 3, Object: []byte(`{"Number":"1"}`)}:             "the stored object is of version 3 of its type, and deltatest_test.weighed here is of version 2",
		{Version: 2, Object: []byte(`{"Number":"2"}`)}:             `the stored object decodes into a deltatest_test.weighed with the id "2"`,
		{Version: 2, Object: []byte(`{"Number":"1","Grams":"x"}`)}: "the stored object does not decode into deltatest_test.weighed: json: cannot unmarshal string",
	} {
		o := work(stored)
		require.Contains(t, o.Failure, failure)
		require.False(t, o.Called)
		require.False(t, o.Counted)
		require.Equal(t, 1, o.Row.Attempt)
		require.Equal(t, deltatype.ResourceStateScheduled, o.State)
		require.Equal(t, noon.Add(time.Second), o.NextAttemptAt)
		require.Zero(t, o.Object)
	}
}
