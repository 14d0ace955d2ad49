package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file may be anything. All that is wrong with it is said with its name, and nothing panics.
func FuzzFile(f *testing.F) {
	for _, text := range []string{
		"", "# nothing", "---", "--- \n---", "relays:", "relays: [{}]", "relays: [1, [2]]", "&a [*a]", "a: &a {b: *a}", "relays: !!binary x", "? {a: b}\n: c", "\xff", "\t",
		`relays:
  - name: orders
    source: {stream: {database_url: "postgres://localhost/x", slot: orders, publications: [orders]}}
    sink: {webhook: {url: "https://example.com", secrets: [secret], headers: {a: b}, concurrency: 2}}
    filter: {tables: [public.order, "audit.*"], types: [insert]}
    retry: {shortest: 1s, longest: 1m, max_attempts: 3, timeout: 5s}
    limits: {batch_size: 10, parallelism: 1}
`, `relays:
  - name: bills
    source: {log: {database_url: "postgres://localhost/x", members: 2, member: 1}}
    sink: {nats: {servers: [nats://127.0.0.1:4222], token: secret, tls: {}}}
  - name: prices
    source: {messagedb: {database_url: "postgres://localhost/x", category: price}}
    sink: {kafka: {brokers: ["127.0.0.1:9092"], sasl: {mechanism: plain, user: u, password: p}}}
  - name: cache
    source: {log: {database_url: "${NONE}"}}
    sink: {redis: {url: "redis://127.0.0.1:6379/0", max_len: 1}}
`,
	} {
		f.Add(text)
	}
	file := filepath.Join(f.TempDir(), "sinks.yaml") // not f.Chdir: a fuzzing worker that changes its folder ends at once
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "/dev") || strings.Contains(text, "/proc") {
			return // {file: PATH} is read, and these have no end.
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		relays, err := loadFile(file)
		if err == nil {
			if len(relays) == 0 {
				t.Fatalf("%q: no relays, and no error", text)
			}
			return
		}
		invalid := (*fileError)(nil)
		if !errors.As(err, &invalid) {
			t.Fatalf("%q: %v", text, err)
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if !strings.HasPrefix(line, file+":") {
				t.Fatalf("%q: %q", text, line)
			}
		}
	})
}
