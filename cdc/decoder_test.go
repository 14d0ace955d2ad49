package cdc_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
)

// readMessages returns pgoutput's messages for everything written since the last call, or since the slot was made.
func (d *database) readMessages(protocol int) (messages [][]byte) {
	d.tb.Helper()
	tx, err := d.pool.Begin(d.tb.Context())
	require.NoError(d.tb, err)
	defer func() { _ = tx.Rollback(d.tb.Context()) }()
	_, err = tx.Exec(d.tb.Context(), "set local logical_decoding_work_mem = '64kB'")
	require.NoError(d.tb, err)
	options := "'messages', 'true'"
	if protocol > 1 {
		options += ", 'streaming', 'on'"
	}
	rows, err := tx.Query(d.tb.Context(), fmt.Sprintf(`select data from pg_logical_slot_get_binary_changes(
		'%s', null, null, 'proto_version', '%d', 'publication_names', 'p', %s)`, d.name, protocol, options))
	require.NoError(d.tb, err)
	defer rows.Close()
	for rows.Next() {
		var data []byte
		require.NoError(d.tb, rows.Scan(&data))
		messages = append(messages, data)
	}
	require.NoError(d.tb, rows.Err())
	return messages
}

func decodeMessages(tb testing.TB, messages [][]byte) (changes []*cdc.Change) {
	tb.Helper()
	decoder := cdc.NewDecoder()
	for _, m := range messages {
		some, err := decoder.Decode(m)
		require.NoError(tb, err)
		changes = append(changes, some...)
	}
	return changes
}

func TestDecoderReadsWhatTheServerWrites(t *testing.T) {
	t.Parallel()
	for protocol := 1; protocol <= 2; protocol++ {
		t.Run(fmt.Sprintf("protocol %d", protocol), func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			d.exec(`create type mood as enum ('glad', 'so so')`,
				`create table "Odd "" name" (a int, b text, "the mood" mood, big text, n numeric(8,3)[], primary key (b, a))`,
				`create table whole (a int, big text)`, `alter table whole replica identity full`,
				`create table other (id int primary key)`,
				`create publication p for all tables`,
				`select pg_create_logical_replication_slot('`+d.name+`', 'pgoutput')`,
				`insert into "Odd "" name" select 1, 'x', 'so so', string_agg(md5(i::text), ''), '{1.5,NULL}' from generate_series(1, 500) i`,
				`update "Odd "" name" set "the mood" = null`,
				`update "Odd "" name" set a = 2`,
				`delete from "Odd "" name"`,
				`insert into whole values (1, 'small')`,
				`update whole set a = 2`,
				`truncate whole, other restart identity cascade`,
				`select pg_logical_emit_message(true, 'mine', 'with'), pg_logical_emit_message(false, 'mine', 'without')`,
				`alter table other add column more bigint default 7`,
				`insert into other values (1)`)
			changes := decodeMessages(t, d.readMessages(protocol))
			var kinds []string
			for _, c := range changes {
				kinds = append(kinds, string(c.Kind))
			}
			require.Equal(t, "insert update update delete insert update truncate truncate message message insert", strings.Join(kinds, " "))

			inserted := changes[0]
			require.Equal(t, "public", inserted.Relation.Schema)
			require.Equal(t, `Odd " name`, inserted.Relation.Table)
			require.Equal(t, cdc.IdentityDefault, inserted.Relation.Identity)
			require.Equal(t, "int4", inserted.Relation.Columns[0].Type)
			require.Equal(t, "public.mood", inserted.Relation.Columns[2].Type)
			require.Equal(t, "_numeric", inserted.Relation.Columns[4].Type)
			require.EqualValues(t, 8<<16+3+4, inserted.Relation.Columns[4].Modifier)
			require.True(t, inserted.Relation.Columns[1].Key)
			require.False(t, inserted.Relation.Columns[2].Key)
			require.Equal(t, 2, inserted.Relation.Index("the mood"))
			require.Equal(t, "so so", inserted.New[2].Text)
			require.Len(t, inserted.New[3].Text, 500*32)
			require.Equal(t, "{1.500,NULL}", inserted.New[4].Text)
			require.Nil(t, inserted.Old)

			updated := changes[1]
			require.Equal(t, cdc.ValueNull, updated.New[2].State)
			require.Equal(t, cdc.Value{State: cdc.ValueUnchanged}, updated.New[3], "a large value that was not changed is not null")
			require.Nil(t, updated.Key)

			moved := changes[2]
			require.Equal(t, "[1 x]", fmt.Sprint(moved.KeyValues()))
			require.Equal(t, "2", moved.New[0].Text)
			require.Equal(t, cdc.ValueNull, moved.Key[3].State)

			require.Equal(t, "[2 x]", fmt.Sprint(changes[3].KeyValues()))
			require.Nil(t, changes[3].New)

			require.Equal(t, "[1 small]", fmt.Sprint(changes[5].Old))
			require.Equal(t, "[2 small]", fmt.Sprint(changes[5].New))

			require.Equal(t, cdc.Truncate{Cascade: true, RestartIdentity: true}, changes[6].Truncate)
			require.ElementsMatch(t, []string{"public.whole", "public.other"}, []string{changes[6].Relation.Name(), changes[7].Relation.Name()})

			// Messages outside of transactions are not ordered with transactional ones.
			contents := map[bool]string{}
			for _, c := range changes[8:10] {
				require.Equal(t, "mine", c.Message.Prefix)
				contents[c.Message.Transactional] = string(c.Message.Content)
			}
			require.Equal(t, map[bool]string{true: "with", false: "without"}, contents)

			require.Equal(t, "[1 7]", fmt.Sprint(changes[10].New), "the table is described again when it has changed")
			require.Equal(t, "int8", changes[10].Relation.Columns[1].Type)
		})
	}
}

func TestDecoderReadsStreamedTransactions(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table many (id int primary key, v text)`, `create publication p for all tables`,
		`select pg_create_logical_replication_slot('`+d.name+`', 'pgoutput')`,
		`insert into many select i, 'v' || i from generate_series(1, 5000) i`)
	messages := d.readMessages(2)
	require.Equal(t, byte('S'), messages[0][0], "the server must stream, otherwise this tests nothing")
	changes := decodeMessages(t, messages)
	require.Len(t, changes, 5000)
	require.Equal(t, "[5000 v5000]", fmt.Sprint(changes[4999].New))
	require.NotZero(t, changes[0].XID)
}

// A decoder never panics, whatever the input. Each truncated message is an error.
func TestDecoderRefusesTruncatedMessages(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, v text)`, `create publication p for all tables`,
		`select pg_create_logical_replication_slot('`+d.name+`', 'pgoutput')`,
		`insert into t values (1, 'one')`, `update t set id = 2`, `delete from t`, `truncate t`,
		`select pg_logical_emit_message(true, 'mine', 'with')`)
	messages := d.readMessages(1)
	decoder := cdc.NewDecoder()
	for _, m := range messages {
		for end := range m {
			if strings.ContainsRune("BCO", rune(m[0])) && end > 0 {
				continue // begin, commit and the like are for the assembler
			}
			_, err := decoder.Decode(m[:end])
			require.ErrorIs(t, err, cdc.ErrProtocol, "%q", m[:end])
		}
		_, err := decoder.Decode(m)
		require.NoError(t, err)
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte("I\x00\x00\x00\x01N\x00\x01t\x00\x00\x00\x01x"))
	f.Add([]byte("T\xff\xff\xff\xff\x00"))
	f.Add([]byte("R\x00\x00\x00\x01public\x00t\x00d\x00\x01\x01id\x00\x00\x00\x00\x17\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		decoder := cdc.NewDecoder()
		_, _ = decoder.Decode([]byte("R\x00\x00\x00\x01public\x00t\x00d\x00\x01\x01id\x00\x00\x00\x00\x17\xff\xff\xff\xff"))
		_, _ = decoder.Decode(data)
	})
}

func TestLSNsAreReadStrictly(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"} {
		lsn, err := cdc.ParseLSN(s)
		require.NoError(t, err)
		require.Equal(t, s, lsn.String())
	}
	for _, s := range []string{"", "/", "0", "0/", "/0", "0/0/0", " 0/0", "0/0x", "-1/0", "+1/0", "0/1_0", "100000000/0", "0/100000000", "garbage"} {
		_, err := cdc.ParseLSN(s)
		var invalid *cdc.InvalidError
		require.ErrorAs(t, err, &invalid, "%q", s)
		require.Equal(t, s, invalid.Value)
	}
}
