package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/sinks"
)

// whole is a file with every field, to which the cases of the test below do something.
const whole = `relays:
  - name: orders
    source:
      stream:
        database_url: ${TEST_SINK_DATABASE}
        slot: orders
        publications: [orders]
        keys: {public.note: [id]}
        schema_changes: true
        id_prefix: shop
    sink:
      webhook:
        url: https://example.com/hooks
        secrets: ["${TEST_SINK_SECRET}", {file: SECRETFILE}]
        headers: {Authorization: Bearer x}
        concurrency: 3
    filter:
      tables: [public.order, "audit.*"]
      types: [insert, update]
    retry: {shortest: 50ms, longest: 1m, max_attempts: 9, timeout: 5s}
    undeliverable: {policy: set_aside, file: ASIDEFILE}
    limits: {batch_size: 100, parallelism: 3, window: 2000, window_bytes: 1000000, confirm_interval: 2s}
  - name: bills
    source:
      log:
        database_url: {file: URLFILE}
        consumer: billing
        members: 2
        member: 1
        restart: true
        id_prefix: here
    sink:
      nats:
        servers: [nats://127.0.0.1:4222]
        token: t
        subject_prefix: shop.delta
    filter: {kinds: [bill], namespaces: [default], types: [updated]}
  - name: more
    source: {log: {database_url: "${TEST_SINK_DATABASE}"}}
    sink:
      kafka:
        brokers: [127.0.0.1:9092]
        tls: {}
        sasl: {mechanism: scram-sha-256, user: u, password: p}
        topic_prefix: shop
    undeliverable: {policy: stop}
  - name: events
    source:
      messagedb:
        database_url: ${TEST_SINK_DATABASE}
        schema: store
        category: account
        consumer: hooks
        members: 2
        member: 1
        restart: true
        id_prefix: store
    sink:
      redis:
        url: ${TEST_SINK_REDIS}
        tls: {}
        stream_prefix: shop
        max_len: 1000
        max_bytes: 1000000
    filter: {types: [Deposited]}
  - name: copy
    source: {stream: {database_url: "${TEST_SINK_DATABASE}", slot: copy, publications: [orders]}}
    sink:
      messagedb:
        database_url: ${TEST_SINK_DATABASE}
        category: events
`

// writeFile creates a file with a text, in which SECRETFILE, URLFILE and ASIDEFILE are replaced by files of a temporary folder.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	folder := t.TempDir()
	for name, content := range map[string]string{"SECRETFILE": "whsec_c2VjcmV0\n", "URLFILE": "postgres://u:hunter2@127.0.0.1:1/d\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600))
		text = strings.ReplaceAll(text, name, filepath.Join(folder, name))
	}
	text = strings.ReplaceAll(text, "ASIDEFILE", filepath.Join(folder, "aside.jsonl"))
	path := filepath.Join(folder, "sink.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func setEnvironment(t *testing.T) {
	t.Helper()
	t.Setenv("TEST_SINK_DATABASE", "postgres://u:hunter2@127.0.0.1:1/d")
	t.Setenv("TEST_SINK_SECRET", "hunter2")
	t.Setenv("TEST_SINK_REDIS", "rediss://u:hunter2@127.0.0.1:1/0")
}

func TestAFileWithEveryFieldIsRead(t *testing.T) {
	setEnvironment(t)
	relays, err := loadFile(writeFile(t, whole))
	require.NoError(t, err)
	require.Len(t, relays, 5)
	var read []string
	for _, r := range relays {
		read = append(read, r.name+" "+r.sourceType+" "+r.sinkType)
	}
	require.Equal(t, []string{"orders stream webhook", "bills log nats", "more log kafka", "events messagedb redis", "copy stream messagedb"}, read)
	config := relays[0].config
	require.NotNil(t, config.SetAside)
	wants := config.Filter
	config.Filter, config.SetAside = nil, nil
	require.Equal(t, sinks.Config{
		BatchSize: 100, Parallelism: 3, Window: 2000, WindowBytes: 1000000, ConfirmInterval: 2e9, ShortestRetry: 5e7, LongestRetry: 6e10, MaxAttempts: 9,
		DeliveryTimeout: 5e9, Undeliverable: sinks.SetAside,
	}, config)
	for m, wanted := range map[*sinks.Message]bool{
		{Subject: "public.order", Type: "insert"}: true, {Subject: "audit.x", Type: "update"}: true,
		{Subject: "public.order", Type: "delete"}: false, {Subject: "public.orders", Type: "insert"}: false, {Subject: "public.order", Type: "message"}: false,
	} {
		require.Equal(t, wanted, wants(*m), "%v", *m)
	}
	for m, wanted := range map[*sinks.Message]bool{
		{Subject: "bill", Type: "updated", Body: []byte(`{"namespace":"default"}`)}: true, {Subject: "bill", Type: "updated", Body: []byte(`{"namespace":"x"}`)}: false,
		{Subject: "other", Type: "updated", Body: []byte(`{"namespace":"default"}`)}: false, {Subject: "bill", Type: "failed", Body: []byte(`{"namespace":"default"}`)}: false,
	} {
		require.Equal(t, wanted, relays[1].config.Filter(*m), "%v", *m)
	}
	require.Nil(t, relays[2].config.Filter)
	require.True(t, relays[3].config.Filter(sinks.Message{Type: "Deposited"}))
	require.False(t, relays[3].config.Filter(sinks.Message{Type: "Withdrawn"}))
}

// The file above has every field, and the documentation, too.
func TestEachFieldIsTriedAndDocumented(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../../../docs/sinks.md")
	require.NoError(t, err)
	untried := map[string]bool{"credentials": true, "ca": true, "cert": true, "key": true} // they name files that would have to exist
	var look func(section reflect.Type)
	look = func(section reflect.Type) {
		for section.Kind() == reflect.Pointer || section.Kind() == reflect.Slice {
			section = section.Elem()
		}
		if section.Kind() != reflect.Struct {
			return
		}
		for i := range section.NumField() {
			name := section.Field(i).Tag.Get("yaml")
			require.NotEmpty(t, name)
			require.True(t, untried[name] || regexp.MustCompile(`\b`+name+`:`).MatchString(whole), name)
			require.Regexp(t, "\\b"+name+"\\b", string(document))
			look(section.Field(i).Type)
		}
	}
	look(reflect.TypeFor[file]())
}

// Each case replaces a part of the whole file. The error names the file, the line and the field, and no secret.
func TestAWrongFileIsRefusedWithLineAndField(t *testing.T) {
	setEnvironment(t)
	for name, c := range map[string]struct{ from, to, says string }{
		"unknown field":         {"slot: orders", "slott: orders", "6: relays[0].source.stream.slott: is unknown: there are database_url, slot, publications, keys, schema_changes, id_prefix"},
		"unknown at the top":    {"relays:", "relay:", "1: relay: is unknown: there are relays"},
		"twice":                 {"slot: orders\n", "slot: orders\n        slot: orders\n", "7: relays[0].source.stream.slot: is there twice"},
		"no name":               {"name: orders", "name: -x", "2: relays[0].name: must be letters"},
		"the same name":         {"name: bills", "name: orders", "23: relays[1].name: is that of another relay: orders"},
		"no URL":                {"database_url: ${TEST_SINK_DATABASE}\n", "id_prefix: x\n", "relays[0].source.stream.database_url: is required"},
		"a wrong URL":           {"database_url: ${TEST_SINK_DATABASE}", "database_url: hunter2", "5: relays[0].source.stream.database_url: must be as postgres://"},
		"an unset variable":     {"${TEST_SINK_DATABASE}", "${TEST_SINK_UNSET}", "5: relays[0].source.stream.database_url: the environment variable TEST_SINK_UNSET is not set"},
		"part of a value":       {"${TEST_SINK_DATABASE}", "postgres://u:${TEST_SINK_SECRET}@h/d", "5: relays[0].source.stream.database_url: ${NAME} must be the whole value"},
		"no such file":          {"SECRETFILE", "/nowhere/x", "14: relays[0].sink.webhook.secrets[1].file: open /nowhere/x: no such file"},
		"unknown of a secret":   {"{file: SECRETFILE}", "{path: x}", "14: relays[0].sink.webhook.secrets[1].path: is unknown: there are file"},
		"slot":                  {"slot: orders", "slot: Orders", "6: relays[0].source.stream.slot: must be 1 to 63"},
		"no publications":       {"publications: [orders]", "publications: []", "7: relays[0].source.stream.publications: is required"},
		"not a list":            {"publications: [orders]", "publications: orders", "7: relays[0].source.stream.publications: must be a list"},
		"two sources":           {"sink:\n      webhook", "  log: {database_url: x}\n    sink:\n      webhook", "relays[0].source: must have one of log, messagedb, stream, and has log and stream"},
		"no sink":               {"sink:\n      nats:", "sink:\n      natz:", "33: relays[1].sink.natz: is unknown: there are webhook, nats, kafka, redis, messagedb"},
		"an empty sink":         {"source: {log: {database_url: \"${TEST_SINK_DATABASE}\"}}", "source:", "39: relays[2].source: must have one of log, messagedb, stream"},
		"webhook's URL":         {"url: https://example.com/hooks", "url: example.com/hunter2", "13: relays[0].sink.webhook.url: must be an address with http or https"},
		"webhook's secret":      {"\"${TEST_SINK_SECRET}\"", `"whsec_???hunter2"`, "14: relays[0].sink.webhook.secrets[0]: must not be empty, and base64"},
		"concurrency":           {"concurrency: 3", "concurrency: -3", "16: relays[0].sink.webhook.concurrency: must be positive"},
		"not a number":          {"concurrency: 3", "concurrency: many", "16: relays[0].sink.webhook.concurrency: must be a whole number"},
		"not a boolean":         {"schema_changes: true", "schema_changes: maybe", "9: relays[0].source.stream.schema_changes: must be true or false"},
		"header":                {"Authorization: Bearer x", "Authorization: \"a\\nb\"", "15: relays[0].sink.webhook.headers.Authorization: must be one line"},
		"pattern":               {"audit.*", "audit.[", "18: relays[0].filter.tables[1]: must be schema.table, or a pattern"},
		"type":                  {"types: [insert, update]", "types: [insert, updated]", "19: relays[0].filter.types[1]: must be one of insert, update, delete, truncate, message, schema, and is \"updated\""},
		"a type of the stream":  {"types: [updated]", "types: [update]", "37: relays[1].filter.types[0]: must be one of created, updated"},
		"a filter of the other": {"types: [insert, update]", "kinds: [x]", "19: relays[0].filter.kinds: is for the source log only"},
		"an empty filter":       {"types: [insert, update]", "types: []", "19: relays[0].filter.types: must have at least one value"},
		"duration":              {"shortest: 50ms", "shortest: 50", "20: relays[0].retry.shortest: must be a duration, such as 100ms"},
		"retries":               {"shortest: 50ms", "shortest: 5m", "20: relays[0].retry.longest: must be at least retry.shortest, 5m0s"},
		"attempts":              {"max_attempts: 9", "max_attempts: -9", "20: relays[0].retry.max_attempts: must not be negative"},
		"policy":                {"policy: stop", "policy: drop", "46: relays[2].undeliverable.policy: must be block, set_aside or stop"},
		"nowhere to go":         {"policy: stop", "policy: set_aside", "46: relays[2].undeliverable.file: is required where the policy is set_aside"},
		"a place too much":      {"policy: stop", "policy: stop, file: x", "46: relays[2].undeliverable.file: is for the policy set_aside only"},
		"no such folder":        {"ASIDEFILE", "/nowhere/x.jsonl", "21: relays[0].undeliverable.file: must be in a folder that exists"},
		"window":                {"window: 2000", "window: 20", "22: relays[0].limits.window: must be at least limits.batch_size, 100"},
		"member":                {"member: 1", "member: 2", "relays[1].source.log.member: must be between 0 and one less than members"},
		"consumer":              {"consumer: billing", "consumer: a b", "27: relays[1].source.log.consumer: must be letters"},
		"server":                {"nats://127.0.0.1:4222", "127.0.0.1:4222", "34: relays[1].sink.nats.servers[0]: must be as nats://host:4222"},
		"subject":               {"shop.delta", "shop.>", "36: relays[1].sink.nats.subject_prefix: must be parts"},
		"no brokers":            {"brokers: [127.0.0.1:9092]", "brokers: []", "42: relays[2].sink.kafka.brokers: is required"},
		"mechanism":             {"scram-sha-256", "gssapi", "44: relays[2].sink.kafka.sasl.mechanism: must be plain, scram-sha-256 or scram-sha-512, and is \"gssapi\""},
		"no password":           {"user: u, password: p", "user: u", "44: relays[2].sink.kafka.sasl.password: is required"},
		"half a certificate":    {"tls: {}", "tls: {cert: x}", "43: relays[2].sink.kafka.tls: cert and key belong together"},
		"no certificates":       {"tls: {}", "tls: {ca: /nowhere/x}", "43: relays[2].sink.kafka.tls.ca: open /nowhere/x"},
		"topic":                 {"topic_prefix: shop", "topic_prefix: a b", "45: relays[2].sink.kafka.topic_prefix: must be letters"},
		"no YAML":               {"relays:\n", "relays: [\n", ": did not find expected"},
		"category":              {"category: account", "category: account-1", "52: relays[3].source.messagedb.category: must not contain"},
		"no category":           {"category: account", "category: ''", "52: relays[3].source.messagedb.category: is required"},
		"schema":                {"schema: store", "schema: " + strings.Repeat("s", 64), "51: relays[3].source.messagedb.schema: must not be longer than 63 bytes"},
		"reader of a category":  {"consumer: hooks", "consumer: a b", "53: relays[3].source.messagedb.consumer: must be letters"},
		"member of a category":  {"hooks\n        members: 2", "hooks\n        members: 1", "55: relays[3].source.messagedb.member: must be between 0 and one less than members"},
		"kinds of a category":   {"types: [Deposited]", "kinds: [x]", "65: relays[3].filter.kinds: is for the source log only"},
		"Redis' URL":            {"url: ${TEST_SINK_REDIS}", "url: 127.0.0.1:hunter2", "60: relays[3].sink.redis.url: must be as redis://"},
		"no URL of Redis":       {"url: ${TEST_SINK_REDIS}", "url: ''", "60: relays[3].sink.redis.url: is required"},
		"TLS without it":        {"url: ${TEST_SINK_REDIS}", "url: redis://127.0.0.1:1", "61: relays[3].sink.redis.tls: is for a URL with rediss:// only"},
		"length":                {"max_len: 1000", "max_len: -1", "63: relays[3].sink.redis.max_len: must be positive"},
		"bytes":                 {"max_bytes: 1000000", "max_bytes: -1", "64: relays[3].sink.redis.max_bytes: must be positive"},
		"category to write to":  {"category: events", "category: a-b", "71: relays[4].sink.messagedb.category: must not contain"},
		"two documents":         {"        category: events\n", "---\nrelays: []\n", "a file has one document"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, whole, c.from)
			path := writeFile(t, strings.Replace(whole, c.from, c.to, 1))
			_, err := loadFile(path)
			invalid := new(fileError)
			require.ErrorAs(t, err, &invalid)
			require.Contains(t, err.Error(), c.says)
			for line := range strings.Lines(err.Error()) {
				require.Regexp(t, "^"+regexp.QuoteMeta(path)+`:\d+: `, line)
			}
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
	for name, text := range map[string]string{"empty": "", "a comment": "# nothing\n", "no relays": "relays: []\n", "null": "relays:\n"} {
		_, err := loadFile(writeFile(t, text))
		require.ErrorContains(t, err, "relays: ", name)
	}
}

// All problems are reported at once, in the order of the file.
func TestAllProblemsAreReported(t *testing.T) {
	setEnvironment(t)
	text := strings.NewReplacer("slot: orders", "slot: X", "concurrency: 3", "concurrency: x", "policy: stop", "policy: drop").Replace(whole)
	path := writeFile(t, text)
	_, err := loadFile(path)
	require.Equal(t, []string{
		path + ":6: relays[0].source.stream.slot: must be 1 to 63 of the characters a-z, 0-9 and _",
		path + ":16: relays[0].sink.webhook.concurrency: must be a whole number",
		path + ":46: relays[2].undeliverable.policy: must be block, set_aside or stop",
	}, strings.Split(err.Error(), "\n"))
}

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(relays:.*?)```")

// The file in the documentation is valid.
func TestTheDocumentedFileIsValid(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/d")
	document, err := os.ReadFile("../../../docs/sinks.md")
	require.NoError(t, err)
	block := yamlBlock.FindSubmatch(document)
	require.NotNil(t, block)
	text := strings.NewReplacer("/run/secrets/webhook", "SECRETFILE", "/var/lib/delta/orders.jsonl", "ASIDEFILE").Replace(string(block[1]))
	relays, err := loadFile(writeFile(t, text))
	require.NoError(t, err)
	require.Len(t, relays, 2)
}
