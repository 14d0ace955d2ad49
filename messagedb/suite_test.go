package messagedb_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

// The tests of this file hold for each messagedb.Store: for clients of both kinds of server, and for the one in memory.

func onEveryStore(t *testing.T, test func(t *testing.T, s messagedb.Store)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, messagedb.NewMemory())
	})
	onBoth(t, func(t *testing.T, s *store) { test(t, s.client) })
}

// errorText formats the error of a call without the parts that only a server has.
func errorText(err error) string {
	var conflict *messagedb.VersionConflictError
	var duplicate *messagedb.DuplicateIDError
	var bad *messagedb.InvalidError
	var condition *messagedb.ConditionDisabledError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &conflict):
		return fmt.Sprintf("conflict %s %d %d %v", conflict.Stream, conflict.Expected, conflict.Actual, conflict.Stale)
	case errors.As(err, &duplicate):
		return fmt.Sprintf("duplicate %s %s %d %v", duplicate.ID, duplicate.Stream, duplicate.Position, duplicate.Different)
	case errors.As(err, &bad):
		return "invalid " + string(bad.Field)
	case errors.As(err, &condition):
		return "condition " + condition.Condition
	case errors.Is(err, messagedb.ErrNoMessage):
		return "no message"
	}
	return err.Error()
}

// messageText is a message without its time.
func messageText(m *messagedb.Message) string {
	if m == nil {
		return "none"
	}
	return fmt.Sprintf("%s %s %s %d %s %s", m.ID, m.Stream, m.Type, m.Position, m.Data, m.Metadata)
}

func allShown(messages []*messagedb.Message) (all []string) {
	for _, m := range messages {
		all = append(all, messageText(m))
	}
	return all
}

func TestEveryStoreKeepsVersionsAndIDs(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, s messagedb.Store) {
		version := func(stream messagedb.StreamName) int64 {
			v, err := s.StreamVersion(t.Context(), stream)
			require.NoError(t, err)
			return v
		}
		write := func(from, to int, stream messagedb.StreamName, expected int64, opts ...messagedb.WriteOption) string {
			_, err := s.Write(t.Context(), stream, newMessages(from, to), expected, opts...)
			return errorText(err)
		}
		require.Equal(t, messagedb.NoStreamVersion, version("a-1"))
		require.Empty(t, write(1, 2, "a-1", messagedb.NoStreamVersion))
		require.EqualValues(t, 1, version("a-1"))
		require.Equal(t, "conflict a-1 -1 1 false", write(3, 3, "a-1", messagedb.NoStreamVersion))
		require.Equal(t, "conflict a-1 7 1 false", write(1, 1, "a-1", 7), "the version is looked at before the id")
		require.Equal(t, "conflict b-1 0 -1 false", write(3, 3, "b-1", 0))
		require.Equal(t, "duplicate "+makeID(2)+"  -1 false", write(2, 2, "b-1", messagedb.AnyVersion))
		require.Equal(t, "duplicate "+makeID(2)+"  -1 false", write(2, 4, "a-1", 1), "all or none")
		_, err := s.Write(t.Context(), "a-1", append(newMessages(3, 3), newMessages(3, 3)...), 1)
		require.Equal(t, "duplicate "+makeID(3)+"  -1 false", errorText(err), "twice in one call")
		require.EqualValues(t, 1, version("a-1"))
		require.Equal(t, messagedb.NoStreamVersion, version("b-1"))
		position, err := s.WriteMessage(t.Context(), "a-1", newMessage(3), 1)
		require.NoError(t, err)
		require.EqualValues(t, 2, position)

		// Idempotent writes find what is there.
		once := messagedb.Idempotent()
		for _, expected := range []int64{messagedb.NoStreamVersion, 0, messagedb.AnyVersion} {
			position, err := s.Write(t.Context(), "a-1", newMessages(1, 2), expected, once)
			require.NoError(t, err)
			require.EqualValues(t, 1, position)
		}
		require.Equal(t, "duplicate "+makeID(3)+" a-1 2 false", write(3, 4, "a-1", 2, once), "one of two")
		_, err = s.Write(t.Context(), "a-1", append(newMessages(1, 1), newMessages(3, 3)...), 2, once)
		require.Equal(t, "duplicate "+makeID(3)+" a-1 2 false", errorText(err), "both, with another one between")
		require.Equal(t, "duplicate "+makeID(1)+" a-1 0 true", write(1, 2, "b-1", messagedb.AnyVersion, once), "in another stream")
		require.Equal(t, "conflict a-1 9 2 false", write(9, 9, "a-1", 9, once))
		other := newMessage(1)
		other.Data = "other"
		_, err = s.WriteMessage(t.Context(), "a-1", other, messagedb.AnyVersion, once)
		require.Equal(t, "duplicate "+makeID(1)+" a-1 0 true", errorText(err))
		same := messagedb.ProposedMessage{ID: strings.ToUpper(makeID(7)), Type: "T", Data: json.RawMessage(`{"b":1.50,"a":[1e2]}`)}
		_, err = s.WriteMessage(t.Context(), "c-1", same, messagedb.AnyVersion, once)
		require.NoError(t, err)
		same.Data = json.RawMessage(`{"a": [100.0], "b": 1.5}`)
		_, err = s.WriteMessage(t.Context(), "c-1", same, messagedb.AnyVersion, once)
		require.NoError(t, err, "jsonb compares numbers, not their digits")
	})
}

func TestEveryStoreRefusesTheSameInput(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, s messagedb.Store) {
		ctx := t.Context()
		for name, c := range map[string]struct {
			call func() error
			want string
		}{
			"stream without id": {func() error { _, err := s.WriteMessage(ctx, "a", newMessage(1), -2); return err }, "invalid StreamID"},
			"empty stream":      {func() error { _, err := s.WriteMessage(ctx, "", newMessage(1), -2); return err }, "invalid Stream"},
			"no category":       {func() error { _, err := s.WriteMessage(ctx, "-1", newMessage(1), -2); return err }, "invalid Category"},
			"version":           {func() error { _, err := s.WriteMessage(ctx, "a-1", newMessage(1), -3); return err }, "invalid ExpectedVersion"},
			"no messages":       {func() error { _, err := s.Write(ctx, "a-1", nil, -2); return err }, "invalid Messages"},
			"id": {func() error {
				_, err := s.WriteMessage(ctx, "a-1", messagedb.ProposedMessage{ID: "x", Type: "T", Data: 1}, -2)
				return err
			}, "invalid ID"},
			"no type": {func() error { _, err := s.WriteMessage(ctx, "a-1", messagedb.ProposedMessage{Data: 1}, -2); return err }, "invalid Type"},
			"no data": {func() error {
				_, err := s.WriteMessage(ctx, "a-1", messagedb.ProposedMessage{Type: "T"}, -2)
				return err
			}, "invalid Data"},
			"no id, idempotent": {func() error {
				_, err := s.WriteMessage(ctx, "a-1", messagedb.ProposedMessage{Type: "T", Data: 1}, -2, messagedb.Idempotent())
				return err
			}, "invalid ID"},
			"NUL": {func() error {
				_, err := s.WriteMessage(ctx, "a-1", messagedb.ProposedMessage{Type: "T", Data: "\x00"}, -2)
				return err
			}, "invalid Data"},
			"half a surrogate": {func() error {
				_, err := s.WriteMessage(ctx, "a-1", messagedb.ProposedMessage{Type: "T", Data: json.RawMessage(`"\ud800"`)}, -2)
				return err
			}, "invalid Data"},
			"other half": {func() error {
				_, err := s.WriteMessage(ctx, "a-1", messagedb.ProposedMessage{Type: "T", Data: json.RawMessage(`"\udc00\ud800"`)}, -2)
				return err
			}, "invalid Data"},
			"huge number": {func() error {
				_, err := s.WriteMessage(ctx, "a-1", messagedb.ProposedMessage{Type: "T", Data: json.RawMessage(`1e200000`)}, -2)
				return err
			}, "invalid Data"},
			"read a category": {func() error { _, err := s.ReadStream(ctx, "a", messagedb.StreamOptions{}); return err }, "invalid StreamID"},
			"read from":       {func() error { _, err := s.ReadStream(ctx, "a-1", messagedb.StreamOptions{From: -1}); return err }, "invalid Position"},
			"batch":           {func() error { _, err := s.ReadStream(ctx, "a-1", messagedb.StreamOptions{BatchSize: -2}); return err }, "invalid BatchSize"},
			"condition": {func() error {
				_, err := s.ReadStream(ctx, "a-1", messagedb.StreamOptions{Condition: "true"})
				return err
			}, "condition true"},
			"category":       {func() error { _, err := s.ReadCategory(ctx, "a-1", messagedb.CategoryOptions{}); return err }, "invalid Category"},
			"category from":  {func() error { _, err := s.ReadCategory(ctx, "a", messagedb.CategoryOptions{From: -1}); return err }, "invalid Position"},
			"category batch": {func() error { _, err := s.ReadCategory(ctx, "a", messagedb.CategoryOptions{BatchSize: -2}); return err }, "invalid BatchSize"},
			"category condition": {func() error {
				_, err := s.ReadCategory(ctx, "a", messagedb.CategoryOptions{Condition: "true"})
				return err
			}, "condition true"},
			"correlation": {func() error {
				_, err := s.ReadCategory(ctx, "a", messagedb.CategoryOptions{Correlation: "a-1"})
				return err
			}, "invalid Correlation"},
			"group size": {func() error {
				_, err := s.ReadCategory(ctx, "a", messagedb.CategoryOptions{Group: &messagedb.Group{Member: 1}})
				return err
			}, "invalid Group.Size"},
			"group member": {func() error {
				_, err := s.ReadCategory(ctx, "a", messagedb.CategoryOptions{Group: &messagedb.Group{Member: 2, Size: 2}})
				return err
			}, "invalid Group.Member"},
			"last of nothing":    {func() error { _, err := s.LastMessage(ctx, "", ""); return err }, "invalid Stream"},
			"last of none":       {func() error { _, err := s.LastMessage(ctx, "none-1", ""); return err }, "no message"},
			"version of nothing": {func() error { _, err := s.StreamVersion(ctx, ""); return err }, "invalid Stream"},
		} {
			require.Equal(t, c.want, errorText(c.call()), name)
		}
		_, err := s.WriteMessage(canceledContext(), "a-1", newMessage(1), messagedb.AnyVersion)
		require.ErrorIs(t, err, context.Canceled)
		_, err = s.ReadStream(canceledContext(), "a-1", messagedb.StreamOptions{})
		require.ErrorIs(t, err, context.Canceled)
		none, err := s.ReadCategory(ctx, "a", messagedb.CategoryOptions{})
		require.NoError(t, err)
		require.Empty(t, none, "nothing of all that was written")
	})
}

func TestEveryStoreReadsTheSame(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, s messagedb.Store) {
		ctx := t.Context()
		for i := range 1100 {
			m := messagedb.ProposedMessage{ID: makeID(i), Type: fmt.Sprintf("T%d", i%2), Data: i}
			switch i % 4 {
			case 0:
				m.Metadata = map[string]any{messagedb.CorrelationKey: fmt.Sprintf("from%d-1", i%8)}
			case 1:
				m.Metadata = map[string]any{messagedb.CorrelationKey: 4}
			case 2:
				m.Metadata = "no object"
			}
			_, err := s.WriteMessage(ctx, messagedb.StreamName(fmt.Sprintf("a-%d+%d", i%40, i%3)), m, messagedb.AnyVersion)
			require.NoError(t, err)
		}
		all, err := s.ReadCategory(ctx, "a", messagedb.CategoryOptions{BatchSize: messagedb.Unlimited})
		require.NoError(t, err)
		require.Len(t, all, 1100)
		for i, m := range all {
			require.Equal(t, makeID(i), m.ID)
			require.False(t, m.Time.IsZero())
		}
		read := func(options messagedb.CategoryOptions) []*messagedb.Message {
			got, err := s.ReadCategory(ctx, "a", options)
			require.NoError(t, err)
			return got
		}
		require.Equal(t, allShown(all[:1000]), allShown(read(messagedb.CategoryOptions{})))
		require.Equal(t, allShown(all[3:5]), allShown(read(messagedb.CategoryOptions{From: all[3].GlobalPosition, BatchSize: 2})))
		require.Empty(t, read(messagedb.CategoryOptions{From: all[1099].GlobalPosition + 1}))
		for _, m := range read(messagedb.CategoryOptions{Correlation: "from4"}) {
			require.Contains(t, string(m.Metadata), "from4-1")
		}
		require.Len(t, read(messagedb.CategoryOptions{Correlation: "from4"}), 137)
		require.Len(t, read(messagedb.CategoryOptions{Correlation: "4"}), 275, "what is no string counts by its text")
		members := map[string]int{}
		for member := range 3 {
			for _, m := range read(messagedb.CategoryOptions{Group: &messagedb.Group{Member: member, Size: 3}}) {
				id, _ := m.Stream.CardinalID()
				if before, ok := members[id]; ok {
					require.Equal(t, before, member)
				}
				members[id] = member
				want, _ := m.Stream.Member(3)
				require.Equal(t, want, member)
			}
		}
		require.Len(t, members, 40)
		stream, err := s.ReadStream(ctx, all[0].Stream, messagedb.StreamOptions{From: 1, BatchSize: 2})
		require.NoError(t, err)
		require.Len(t, stream, 2)
		require.EqualValues(t, 1, stream[0].Position)
		beyond, err := s.ReadStream(ctx, all[0].Stream, messagedb.StreamOptions{From: 1 << 40})
		require.NoError(t, err)
		require.Empty(t, beyond)
		last, err := s.LastMessage(ctx, "a-0+0", "")
		require.NoError(t, err)
		require.Equal(t, makeID(1080), last.ID)
		_, err = s.LastMessage(ctx, "a-0+0", "T9")
		require.Equal(t, "no message", errorText(err))

		// The reader may change messages that it has read.
		text := string(last.Data)
		copy(last.Data, "xxxx")
		again, err := s.LastMessage(ctx, "a-0+0", "T0")
		require.NoError(t, err)
		require.Equal(t, text, string(again.Data))
	})
}

func TestOneOfManyWritersOfAVersionWins(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, s messagedb.Store) {
		const writers, rounds = 8, 40
		for round := range int64(rounds) {
			var won sync.Map
			var all sync.WaitGroup
			begin := make(chan struct{})
			for w := range writers {
				all.Add(1)
				go func() {
					defer all.Done()
					<-begin
					_, err := s.WriteMessage(t.Context(), "a-1", messagedb.ProposedMessage{Type: "T", Data: w}, round-1)
					if err == nil {
						won.Store(w, true)
					} else if conflict := new(messagedb.VersionConflictError); !errors.As(err, &conflict) {
						t.Error(err)
					}
				}()
			}
			close(begin)
			all.Wait()
			winners := 0
			won.Range(func(any, any) bool { winners++; return true })
			require.Equal(t, 1, winners)
		}
		read, err := s.ReadStream(t.Context(), "a-1", messagedb.StreamOptions{})
		require.NoError(t, err)
		require.Len(t, read, rounds)
	})
}

// The store in memory behaves like a server, call for call: positions, errors, and JSON to the byte.
func TestTheMemoryStoreDoesWhatAServerDoes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, server *store) {
		memory := messagedb.NewMemory()
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 1))
		for range 600 {
			call := randomCall(r)
			want, got := call(t.Context(), server.client), call(t.Context(), memory)
			require.Equal(t, want, got)
		}
	})
}

// randomCall makes a call with a comparable answer. Streams, ids and versions are few, so that calls collide.
func randomCall(r *rand.Rand) func(ctx context.Context, s messagedb.Store) any {
	stream := messagedb.StreamName(fmt.Sprintf("%s-%d+%d", []string{"a", "b:command"}[r.IntN(2)], r.IntN(4), r.IntN(2)))
	category, from, size := stream.Category(), int64(r.IntN(6)), r.IntN(5)-1
	type answer struct {
		Position int64
		Error    string
		Messages []string
	}
	switch r.IntN(7) {
	case 3:
		places := []messagedb.StreamPlace{{Stream: stream, From: from}, {Stream: "a-0+1", From: 1}, {Stream: "a-1+0"}}
		return func(ctx context.Context, s messagedb.Store) any {
			read, err := s.ReadStreams(ctx, places, size)
			return answer{Error: errorText(err), Messages: allShown(read)}
		}
	case 0:
		options := messagedb.StreamOptions{From: from, BatchSize: size}
		return func(ctx context.Context, s messagedb.Store) any {
			read, err := s.ReadStream(ctx, stream, options)
			return answer{Error: errorText(err), Messages: allShown(read)}
		}
	case 1:
		options := messagedb.CategoryOptions{BatchSize: size}
		if r.IntN(2) == 0 {
			options.Correlation = "a"
		}
		if n := r.IntN(4); n > 0 {
			options.Group = &messagedb.Group{Member: r.IntN(n), Size: n}
		}
		return func(ctx context.Context, s messagedb.Store) any {
			read, err := s.ReadCategory(ctx, category, options)
			return answer{Error: errorText(err), Messages: allShown(read)}
		}
	case 2:
		kind := []string{"", "T0", "T1"}[r.IntN(3)]
		return func(ctx context.Context, s messagedb.Store) any {
			last, err := s.LastMessage(ctx, stream, kind)
			return answer{Error: errorText(err), Messages: []string{messageText(last)}}
		}
	}
	var proposed []messagedb.ProposedMessage
	for range 1 + r.IntN(3) {
		proposed = append(proposed, messagedb.ProposedMessage{
			ID: makeID(r.IntN(60)), Type: fmt.Sprintf("T%d", r.IntN(2)), Data: json.RawMessage(randomJSON(r, 3)),
			Metadata: map[string]any{messagedb.CorrelationKey: []string{"a-1", "b-1"}[r.IntN(2)]},
		})
	}
	var opts []messagedb.WriteOption
	if r.IntN(2) == 0 {
		opts = append(opts, messagedb.Idempotent())
	}
	expected := int64(r.IntN(6)) - 3
	if r.IntN(3) > 0 {
		expected = messagedb.AnyVersion
	}
	return func(ctx context.Context, s messagedb.Store) any {
		position, err := s.Write(ctx, stream, proposed, expected, opts...)
		return answer{Position: position, Error: errorText(err)}
	}
}

func randomJSON(r *rand.Rand, depth int) string {
	if depth == 0 || r.IntN(3) == 0 {
		return []string{
			"null", "true", "0", "-0", "-0.0", "1.50", "1e2", "1.5E1", "1.50e1", "12e-3", "-7.0e-2", "0e5", "9007199254740993", "0.000", `""`,
			`"\u0001\u001f\u007f\b\t\n\f\r\"\\\/"`, `"\ud83d\ude00 é\u2028<&>"`, `"é"`, `" a "`,
		}[r.IntN(19)]
	}
	var parts []string
	object := r.IntN(2) == 0
	for range r.IntN(4) {
		part := randomJSON(r, depth-1)
		if object {
			part = []string{`"b"`, `"a"`, `"ä"`, `"aa"`, `"Z"`, `""`, `"a"`, `"\u0041"`}[r.IntN(8)] + " :" + part
		}
		parts = append(parts, part)
	}
	if object {
		return "{" + strings.Join(parts, ",") + "}"
	}
	return "[" + strings.Join(parts, " , ") + "]"
}
