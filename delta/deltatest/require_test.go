package deltatest_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// recorder is a testing.TB that records a failure.
type recorder struct {
	testing.TB
	failure string
}

func (*recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failure = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// failureOf returns the failure of a check; empty if there is none.
func failureOf(check func(testing.TB)) string {
	r, done := &recorder{}, make(chan struct{})
	go func() {
		defer close(done)
		check(r)
	}()
	<-done
	return r.failure
}

func TestRequireInformedReadsADatabaseOrTransaction(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	client, err := delta.NewClient(env.Pool, &delta.Config{})
	require.NoError(t, err)
	ctx, object := t.Context(), parcel{Number: "1", Weight: 2}
	tx, err := env.Pool.Begin(ctx)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(ctx) }()
	_, err = client.InformTx(ctx, tx, object, &delta.InformOpts{
		Namespace: "eu", Tags: []string{"red", "big"}, Metadata: []byte(`{"b":1,"a":[2]}`), Priority: 1, MaxAttempts: 3,
	})
	require.NoError(t, err)

	all := deltatest.Informed{
		Namespace: "eu", State: deltatype.ResourceStateScheduled, Generation: 1, Priority: 1, MaxAttempts: 3, Tags: []string{"red", "big"},
		Metadata: []byte(`{"a": [2], "b": 1}`),
	}
	row := deltatest.RequireInformed(ctx, t, tx, object, &all)
	require.Equal(t, "1", row.ObjectID)
	deltatest.RequireInformed(ctx, t, tx, object, nil)
	deltatest.RequireInformed(ctx, t, tx, parcel{Number: "1"}, &deltatest.Informed{AnyContent: true})
	deltatest.RequireNotInformed(ctx, t, tx, parcel{Number: "2"})
	deltatest.RequireNotInformed(ctx, t, env.Pool, object) // not committed yet

	informed := func(conn deltatest.DB, object parcel, want *deltatest.Informed) string {
		return failureOf(func(tb testing.TB) { deltatest.RequireInformed(ctx, tb, conn, object, want) })
	}
	for name, c := range map[string]struct {
		want deltatest.Informed
		says string
	}{
		"namespace":  {deltatest.Informed{Namespace: "us"}, `the namespace is "eu", expected "us"`},
		"state":      {deltatest.Informed{State: deltatype.ResourceStateSynced}, "the state is scheduled, expected synced"},
		"generation": {deltatest.Informed{Generation: 2}, "the generation is 1, expected 2"},
		"priority":   {deltatest.Informed{Priority: 2}, "the priority is 1, expected 2"},
		"attempts":   {deltatest.Informed{MaxAttempts: 10}, "MaxAttempts is 3, expected 10"},
		"tags":       {deltatest.Informed{Tags: []string{}}, `tags is ["red" "big"], expected []`},
		"metadata":   {deltatest.Informed{Metadata: []byte(`{}`)}, `the metadata is {"a": [2], "b": 1}, expected {}`},
	} {
		require.Equal(t, "deltatest: parcel/1 was informed, but not as expected:\n\t"+c.says, informed(tx, object, &c.want), name)
	}
	require.Equal(t, `deltatest: Metadata "x": must be a JSON object`, informed(tx, object, &deltatest.Informed{Metadata: []byte("x")}))
	require.Equal(t, "deltatest: parcel/1 was informed, but not as expected:\n\t"+
		`the object is {"Number": "1", "Weight": 2}, expected {"Number":"1","Weight":3}`+"\n\t"+`the namespace is "eu", expected "us"`,
		informed(tx, parcel{Number: "1", Weight: 3}, &deltatest.Informed{Namespace: "us"}), "all differences")

	require.Equal(t, `deltatest: parcel/2 was not informed; of its kind there are "1" (scheduled)`, informed(tx, parcel{Number: "2"}, nil))
	require.Equal(t, "deltatest: parcel/1 was not informed, nor was anything else of its kind", informed(env.Pool, object, nil))
	require.Contains(t, failureOf(func(tb testing.TB) { deltatest.RequireNotInformed(ctx, tb, tx, object) }),
		`deltatest: parcel/1 was informed unexpectedly: it is scheduled, generation 1, in namespace "eu", since `)

	require.Contains(t, informed(nil, object, nil), "conn is nil")
	require.Contains(t, informed(tx, parcel{}, nil), `the expected object cannot be informed: kind parcel: object id "": must not be empty`)
	bare, err := pgx.Connect(ctx, env.DatabaseURL)
	require.NoError(t, err)
	defer func() { _ = bare.Close(ctx) }()
	_, err = bare.Exec(ctx, "SET search_path = pg_temp")
	require.NoError(t, err)
	require.Contains(t, informed(bare, object, nil), delta.ErrNoSchema.Error())
}
