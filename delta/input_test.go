package delta_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
)

// anything is an object with every optional method, so that each can be made invalid.
type anything struct {
	id, kind string
	Value    any
	opts     delta.InformOpts
	panics   bool
}

func (a anything) ID() string {
	if a.panics {
		panic("no id")
	}
	return a.id
}
func (a anything) Kind() string                 { return a.kind }
func (a anything) InformOpts() delta.InformOpts { return a.opts }

// UnmarshalJSON always fails, so that the object is not compared with its JSON, which has no id.
func (a *anything) UnmarshalJSON([]byte) error { return errors.New("it is only written") }

// dated is an object with a creation time.
type dated struct {
	anything
	at time.Time
}

func (d dated) CreatedAt() time.Time { return d.at }

// unexported has an id that is not in its JSON.
type unexported struct {
	account
	id string
}

func (u unexported) ID() string { return u.id }

// renamed has another id in its JSON.
type renamed struct{ Name string }

func (r renamed) ID() string                 { return r.Name }
func (renamed) Kind() string                 { return "account" }
func (renamed) MarshalJSON() ([]byte, error) { return []byte(`{"Name": "b"}`), nil }

// versionless has version 0, which means no version.
type versionless struct{ account }

func (versionless) Version() int { return 0 }

func TestBadInputIsRefusedNamingFieldValueAndRule(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	long := strings.Repeat("x", 600)
	cases := map[string]struct {
		object delta.Object
		opts   *delta.InformOpts
		want   []string
		input  bool
	}{
		"nil object":           {nil, nil, []string{"object", "nil"}, true},
		"nil pointer":          {(*pointed)(nil), nil, []string{"panic"}, false},
		"empty kind":           {anything{id: "a"}, nil, []string{"kind", `""`, "empty"}, true},
		"long kind":            {anything{id: "a", kind: long}, nil, []string{"kind", "600 bytes", "127"}, true},
		"kind with a slash":    {anything{id: "a", kind: "a/b"}, nil, []string{"kind", `"a/b"`, "letters"}, true},
		"kind with a colon":    {anything{id: "a", kind: "inform:b"}, nil, []string{"kind", `"inform:b"`}, true},
		"empty id":             {anything{kind: "k"}, nil, []string{"object id", `""`, "empty"}, true},
		"long id":              {anything{id: long, kind: "k"}, nil, []string{"object id", "600 bytes", "512"}, true},
		"id with a newline":    {anything{id: "a\nb", kind: "k"}, nil, []string{"object id", `"a\nb"`, "control"}, true},
		"id with a NUL":        {anything{id: "a\x00b", kind: "k"}, nil, []string{"object id", "control"}, true},
		"id of bad UTF-8":      {anything{id: "a\xff", kind: "k"}, nil, []string{"object id", "UTF-8"}, true},
		"id that panics":       {anything{kind: "k", panics: true}, nil, []string{"panic", "no id"}, false},
		"does not marshal":     {anything{id: "a", kind: "k", Value: make(chan int)}, nil, []string{"k/a", "marshal", "chan int"}, false},
		"not a number":         {anything{id: "a", kind: "k", Value: math.NaN()}, nil, []string{"k/a", "marshal", "NaN"}, false},
		"NUL in the object":    {anything{id: "a", kind: "k", Value: "x\x00y"}, nil, []string{"k/a", "object", "NUL"}, true},
		"half a pair":          {anything{id: "a", kind: "k", Value: json.RawMessage(`"\ud83d\ude00 \udc00"`)}, nil, []string{"k/a", "object", `\udc00`}, true},
		"half a pair, cut":     {anything{id: "a", kind: "k", Value: json.RawMessage(`["\ud800"]`)}, nil, []string{"object", "surrogate"}, true},
		"object of bad UTF-8":  {anything{id: "a", kind: "k", Value: json.RawMessage("\"\xff\"")}, nil, []string{"k/a", "object", "UTF-8"}, true},
		"created too late":     {dated{anything{id: "a", kind: "k"}, time.Unix(1<<50, 0)}, nil, []string{"k/a", "CreatedAt", "9999"}, true},
		"created too early":    {dated{anything{id: "a", kind: "k"}, time.Unix(-1<<40, 0)}, nil, []string{"CreatedAt", "years"}, true},
		"bad namespace":        {anything{id: "a", kind: "k"}, &delta.InformOpts{Namespace: "a b"}, []string{"namespace", `"a b"`}, true},
		"negative MaxAttempts": {anything{id: "a", kind: "k"}, &delta.InformOpts{MaxAttempts: -1}, []string{"MaxAttempts", "-1", "at least 1"}, true},
		"metadata: array":      {anything{id: "a", kind: "k"}, &delta.InformOpts{Metadata: []byte(`[1]`)}, []string{"metadata", "[1]", "JSON object"}, true},
		"metadata: null":       {anything{id: "a", kind: "k"}, &delta.InformOpts{Metadata: []byte(`null`)}, []string{"metadata", "null", "JSON object"}, true},
		"metadata: no JSON":    {anything{id: "a", kind: "k"}, &delta.InformOpts{Metadata: []byte(`{`)}, []string{"metadata", "JSON object"}, true},
		"metadata: NUL":        {anything{id: "a", kind: "k"}, &delta.InformOpts{Metadata: []byte(`{"a": "\u0000"}`)}, []string{"metadata", "NUL"}, true},
		"metadata: bad UTF-8":  {anything{id: "a", kind: "k"}, &delta.InformOpts{Metadata: []byte("{\"a\": \"\xff\"}")}, []string{"metadata", "UTF-8"}, true},
		"metadata: half":       {anything{id: "a", kind: "k"}, &delta.InformOpts{Metadata: []byte(`{"a": "\ud800"}`)}, []string{"metadata", "surrogate"}, true},
		"short tag":            {anything{id: "a", kind: "k"}, &delta.InformOpts{Tags: []string{"good", "ab"}}, []string{"tags[1]", `"ab"`, "match"}, true},
		"tag with a space":     {anything{id: "a", kind: "k"}, &delta.InformOpts{Tags: []string{"a b c"}}, []string{"tags[0]", `"a b c"`}, true},
		"tag ends in a dash":   {anything{id: "a", kind: "k"}, &delta.InformOpts{Tags: []string{"abc-"}}, []string{"tags[0]"}, true},
		"id that is lost":      {unexported{account{Name: "plan"}, "a"}, nil, []string{"account/a", "ID", `"a"`, `""`, "exported"}, true},
		"id that changes":      {renamed{"a"}, nil, []string{"account/a", "ID", `comes out as "b"`}, true},
		"no version":           {versionless{account{Name: "a"}}, nil, []string{"account/a", "Version", "0", "at least 1"}, true},
		"long tag":             {anything{id: "a", kind: "k"}, &delta.InformOpts{Tags: []string{long}}, []string{"tags[0]", "255"}, true},
		"the object's options": {anything{id: "a", kind: "k", opts: delta.InformOpts{MaxAttempts: -2}}, nil, []string{"MaxAttempts", "-2"}, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := c.Inform(t.Context(), tc.object, tc.opts)
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
			var input *delta.InputError
			require.Equal(t, tc.input, errors.As(err, &input), "%v", err)
		})
	}
	var rows int
	require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT count(*) FROM delta_resource").Scan(&rows))
	require.Zero(t, rows, "nothing is partly written")
}

// However objects come in, one without an id, or whose id is lost in its JSON, is refused together with its set. For listings see
// TestRefusedObjectsAreShownUntilTheyAreTaken, for sources TestASourceFeedsItsKind.
func TestAnObjectWithoutAnIDIsRefusedWhereverObjectsComeIn(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config(with(&controller[account]{})))
	ctx := t.Context()
	tx, err := h.Pool.Begin(ctx)
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // committed before
	good := account{Name: "good"}
	for without, bad := range map[string]struct {
		object delta.Object
		rule   string
	}{
		"empty": {account{Plan: "free"}, `kind account: object id "": must not be empty`},
		"lost":  {unexported{account{Plan: "free"}, "a"}, `account/a: ID "a": must be the same after a round trip through JSON, but comes out as ""`},
	} {
		for door, inform := range map[string]func() error{
			"Inform":       func() error { _, err := c.Inform(ctx, bad.object, nil); return err },
			"InformTx":     func() error { _, err := c.InformTx(ctx, tx, bad.object, nil); return err },
			"InformMany":   func() error { _, err := c.InformMany(ctx, []delta.Object{good, bad.object}, nil); return err },
			"InformManyTx": func() error { _, err := c.InformManyTx(ctx, tx, []delta.Object{good, bad.object}, nil); return err },
			"Sync":         func() error { _, err := c.Sync(ctx, bad.object, nil); return err },
		} {
			err := inform()
			require.ErrorContains(t, err, bad.rule, "%s, %s", door, without)
			require.ErrorAs(t, err, new(*delta.InputError), "%s, %s", door, without)
		}
	}
	require.NoError(t, tx.Commit(ctx), "the user's transaction is still usable")
	var rows int
	require.NoError(t, h.Pool.QueryRow(ctx, "SELECT count(*) FROM delta_resource").Scan(&rows))
	require.Zero(t, rows)
}

func TestGoodInputAtTheEdgesIsTaken(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	tag := strings.Repeat("t", 255)
	for _, object := range []anything{
		{id: strings.Repeat("x", 512), kind: strings.Repeat("k", 127)},
		{id: "a/b:c d ü 日本", kind: "A.b-c_9"},
		{id: "backslash", kind: "k", Value: `C:\u0000`},
		{id: "big", kind: "k", Value: uint64(math.MaxUint64)},
		{id: "escaped", kind: "k", Value: json.RawMessage(`"\ud83d\ude00\\u0000\\ud800\n"`)},
	} {
		_, err := c.Inform(t.Context(), object, &delta.InformOpts{Tags: []string{tag, "null", "a-b"}, MaxAttempts: math.MaxInt16})
		require.NoError(t, err)
		require.Equal(t, []string{tag, "null", "a-b"}, h.row(object.kind, object.id).Tags)
	}
}

func TestLargeIntegersThatDifferAreAChange(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	for i, value := range []int64{1 << 60, 1<<60 + 1} { // equal as floating point numbers
		result, err := c.Inform(t.Context(), anything{id: "a", kind: "k", Value: value}, nil)
		require.NoError(t, err)
		require.EqualValues(t, i+1, result.Resource.Generation)
	}
}

func TestReadsRefuseInvalidNames(t *testing.T) {
	t.Parallel()
	c := newHarness(t).client(&delta.Config{})
	for name, do := range map[string]func() error{
		"get":    func() error { _, err := c.Get(t.Context(), "k\x00", "a"); return err },
		"delete": func() error { _, err := c.Delete(t.Context(), "k", "a\xff"); return err },
		"retry":  func() error { _, err := c.Retry(t.Context(), "k", "a\x00"); return err },
		"resume": func() error { _, err := c.Resume(t.Context(), "k", "a\x00"); return err },
		"list": func() error {
			_, err := c.List(t.Context(), delta.Filter{ObjectIDs: []string{"\x00"}}, delta.Page{})
			return err
		},
		"labels": func() error {
			_, err := c.RetryAll(t.Context(), delta.Filter{Labels: map[string]string{"a": "\x00"}})
			return err
		},
		"count": func() error { _, err := c.Count(t.Context(), delta.Filter{Kinds: []string{"\xff"}}); return err },
		"listing": func() error {
			return c.ScheduleInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "k"}, &delta.InformOptions{Limit: -1})
		},
	} {
		require.ErrorAs(t, do(), new(*delta.InputError), name)
	}
}

func TestAnUnknownKindIsRefusedByAClientWithControllers(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, err := h.client(h.config(with(&controller[account]{}))).Inform(t.Context(), anything{id: "a", kind: "forgotten"}, nil)
	require.ErrorContains(t, err, `kind "forgotten"`)
	require.ErrorContains(t, err, "account")
}

func TestADatabaseWithoutTheSchemaSaysWhichCommandAppliesIt(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, err := h.Pool.Exec(t.Context(), "DROP TABLE delta_resource, delta_installation CASCADE")
	require.NoError(t, err)
	c := h.client(h.config(with(&controller[account]{})))
	_, err = c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.ErrorIs(t, err, delta.ErrNoSchema)
	require.ErrorContains(t, err, "delta migrate up")
	err = c.Start(t.Context())
	require.ErrorIs(t, err, delta.ErrNoSchema)
}

func TestNewClientRefusesABadConfig(t *testing.T) {
	t.Parallel()
	pool := deltatest.New(t).Pool
	_, err := delta.NewClient(nil, &delta.Config{})
	require.ErrorContains(t, err, "pool is nil")
	_, err = delta.NewClient(pool, nil)
	require.ErrorContains(t, err, "config is nil")

	for _, mode := range []string{"exec", "simple_protocol"} {
		untyped, err := pgxpool.New(t.Context(), "postgres://localhost/nowhere?default_query_exec_mode="+mode)
		require.NoError(t, err)
		defer untyped.Close()
		_, err = delta.NewClient(untyped, &delta.Config{})
		require.ErrorContains(t, err, "default_query_exec_mode")
	}

	controllers := delta.NewControllers()
	delta.AddController(controllers, &controller[account]{})
	temporal, err := client.NewLazyClient(client.Options{Logger: quiet{}})
	require.NoError(t, err)
	defer temporal.Close()
	for name, tc := range map[string]struct {
		config delta.Config
		want   string
	}{
		"prefix":                     {delta.Config{WorkflowIDPrefix: "a/b"}, `Config.WorkflowIDPrefix "a/b"`},
		"work timeout":               {delta.Config{ResourceWorkTimeout: -time.Second}, "Config.ResourceWorkTimeout -1s"},
		"inform timeout":             {delta.Config{ControllerInformTimeout: -2}, "Config.ControllerInformTimeout -2ns"},
		"namespaces, no controllers": {delta.Config{Namespaces: map[string]delta.NamespaceConfig{"a": {MaxWorkers: 1}}}, "Config.Controllers"},
		"MaxWorkers below 0": {
			delta.Config{Controllers: controllers, Namespaces: map[string]delta.NamespaceConfig{"a": {MaxWorkers: -1}}},
			`Config.Namespaces["a"].MaxWorkers -1: must be between 1 and 10000 (or 0, for no bound)`,
		},
		"many MaxWorkers":      {delta.Config{Controllers: controllers, Namespaces: map[string]delta.NamespaceConfig{"a": {MaxWorkers: 10_001}}}, "10001"},
		"namespace name":       {delta.Config{Controllers: controllers, Namespaces: map[string]delta.NamespaceConfig{"": {MaxWorkers: 1}}}, "must not be empty"},
		"task queue":           {delta.Config{TaskQueue: "a\xff"}, "Config.TaskQueue"},
		"a retention too long": {delta.Config{DeletedResourceRetentionPeriod: math.MaxInt64}, "Config.DeletedResourceRetentionPeriod 2562047h47m16.854775807s: must be at most 876000h"},
		"options of another's connection": {
			delta.Config{Temporal: temporal, TemporalOptions: func(*client.Options) {}},
			`Config.TemporalOptions "a function": must not be set together with Config.Temporal`,
		},
		"a build of no deployment":       {delta.Config{WorkerVersion: delta.WorkerVersion{BuildID: "1"}}, `Config.WorkerVersion.Deployment "": must be set together with BuildID`},
		"a deployment without a build":   {delta.Config{WorkerVersion: delta.WorkerVersion{Deployment: "a"}}, `Config.WorkerVersion.BuildID "": must be set together with Deployment`},
		"a dot in a deployment":          {delta.Config{WorkerVersion: delta.WorkerVersion{Deployment: "a.b", BuildID: "1"}}, `Config.WorkerVersion.Deployment "a.b": must not contain '.' or ':'`},
		"a reserved build":               {delta.Config{WorkerVersion: delta.WorkerVersion{Deployment: "a", BuildID: "__x"}}, `Config.WorkerVersion.BuildID "__x": must be valid UTF-8`},
		"a long build":                   {delta.Config{WorkerVersion: delta.WorkerVersion{Deployment: "a", BuildID: strings.Repeat("x", 256)}}, "at most 255 bytes"},
		"the version of a user's worker": {delta.Config{TaskQueue: "q", WorkerVersion: delta.WorkerVersion{Deployment: "a", BuildID: "1"}}, `Config.WorkerVersion a:1: is for workers that Start runs`},
		"pinned to no version":           {delta.Config{PinPasses: true}, "Config.PinPasses true: needs Config.WorkerVersion"},
		"a codec without a hash key":     {delta.Config{ObjectCodec: &AESCodec{}}, `Config.ObjectHashKey "of 0 bytes": must be a secret of 32 bytes at least, because ObjectCodec is set`},
		"a short hash key":               {delta.Config{ObjectCodec: &AESCodec{}, ObjectHashKey: []byte(strings.Repeat("s", 31))}, `Config.ObjectHashKey "of 31 bytes": must be a secret of 32 bytes at least`},
		"a hash key without a codec":     {delta.Config{ObjectHashKey: []byte(strings.Repeat("s", 32))}, `Config.ObjectHashKey "of 32 bytes": must be nil, because ObjectCodec is nil`},
		"a shared worker without a name": {delta.Config{SharedWorker: true}, "Config.SharedWorker true: needs Config.TaskQueue"},
		"polls too often":                {delta.Config{DispatchPollInterval: time.Millisecond}, "Config.DispatchPollInterval 1ms: must be between 10ms and 1h0m0s"},
		"polls too seldom":               {delta.Config{DispatchPollInterval: 2 * time.Hour}, "Config.DispatchPollInterval 2h0m0s: must be between"},
		"negative polls":                 {delta.Config{DispatchPollInterval: -1}, "Config.DispatchPollInterval -1ns: must be between"},
		"often":                          {delta.Config{ResourceInformInterval: time.Millisecond}, "Config.ResourceInformInterval 1ms: must be at least 1s"},
		"an expiry too long": {
			delta.Config{Controllers: controllers, Namespaces: map[string]delta.NamespaceConfig{"a": {MaxWorkers: 1, ResourceExpiry: math.MaxInt64}}},
			`Config.Namespaces["a"].ResourceExpiry`,
		},
		"expiry and retention": {delta.Config{Controllers: controllers, Namespaces: map[string]delta.NamespaceConfig{
			"a": {MaxWorkers: 1, ResourceExpiry: time.Hour, SyncedResourceRetentionPeriod: time.Hour},
		}}, "together with ResourceExpiry"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := delta.NewClient(pool, &tc.config)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

// pointed has pointer receivers.
type pointed struct{ Name string }

func (p *pointed) ID() string   { return p.Name }
func (p *pointed) Kind() string { return "pointed" }

// greedy has settings beyond their bounds.
type greedy struct{ account }

func (greedy) Kind() string                   { return "greedy" }
func (greedy) Settings() delta.ObjectSettings { return delta.ObjectSettings{Parallelism: 10_001} }

// moody has a Kind that panics.
type moody struct{ account }

func (moody) Kind() string { panic("not today") }

// nameless has an invalid kind.
type nameless struct{ account }

func (nameless) Kind() string { return "" }

func TestAddControllerRefusesInvalidControllers(t *testing.T) {
	t.Parallel()
	controllers := delta.NewControllers()
	require.NoError(t, delta.AddControllerSafely(controllers, &controller[account]{}))
	require.NoError(t, delta.AddControllerSafely(controllers, &controller[*pointed]{}))

	require.ErrorContains(t, delta.AddControllerSafely(controllers, &controller[account]{}), `kind "account" has a controller already`)
	require.PanicsWithError(t, `delta: kind "account" has a controller already (for delta_test.account)`,
		func() { delta.AddController(controllers, &controller[account]{}) })
	require.ErrorContains(t, delta.AddControllerSafely(controllers, &controller[greedy]{}), "Parallelism 10001")
	require.ErrorContains(t, delta.AddControllerSafely(controllers, &controller[moody]{}), "not today")
	require.ErrorContains(t, delta.AddControllerSafely(controllers, &controller[nameless]{}), "kind")
	require.ErrorContains(t, delta.AddControllerSafely(controllers, &controller[delta.Object]{}), "interface")
	require.ErrorContains(t, delta.AddControllerSafely(nil, &controller[account]{}), "NewControllers")
	require.ErrorContains(t, delta.AddControllerSafely[account](controllers, nil), "nil")
	require.ErrorContains(t, delta.AddControllerSafely(controllers, (*controller[account])(nil)), "nil")
}
