package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	enumspb "go.temporal.io/api/enums/v1"
)

// Delta parses the version in this format, from this program and from the temporal command.
func TestVersion(t *testing.T) {
	var out bytes.Buffer
	if err := run([]string{"--version"}, &out); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^delta-temporal \(Server 1\.\d+\.\d+, UI 2\.\d+\.\d+\)\n$`).MatchString(out.String()) {
		t.Fatalf("%q", out.String())
	}
}

func TestFlags(t *testing.T) {
	o, err := parseOptions([]string{
		"--ip", "127.0.0.2", "--port", "1", "--headless=true", "--db-filename", "f", "--search-attribute", "Kind=Keyword",
		"--dynamic-config-value", "a.b=[1]", "--dynamic-config-value", "c=200", "--dynamic-config-value", "d=true", "--dynamic-config-value", "e=0.5", "--sqlite-pragma", "journal_mode=WAL",
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.ip != "127.0.0.2" || o.port != 1 || o.uiPort != 1001 || !o.headless || o.database != "f" || o.pragmas["journal_mode"] != "WAL" ||
		o.searchAttributes["Kind"] != enumspb.INDEXED_VALUE_TYPE_KEYWORD || o.dynamicConfig["a.b"].([]any)[0] != 1 ||
		o.dynamicConfig["c"] != 200 || o.dynamicConfig["d"] != true || o.dynamicConfig["e"] != 0.5 {
		t.Fatalf("%+v", o)
	}
	for _, args := range [][]string{
		{"--port", "0"},
		{"--ui-port", "70000"},
		{"--port", "x"},
		{"more"},
		{"--nothing"},
		{"--search-attribute", "Kind"},
		{"--search-attribute", "=Keyword"},
		{"--search-attribute", "Kind=Odd"},
		{"--dynamic-config-value", "a"},
		{"--dynamic-config-value", "a=[b"},
		{"--sqlite-pragma", "journal_mode"},
	} {
		if _, err := parseOptions(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	for _, args := range [][]string{nil, {"server"}, {"server", "start"}, {"server", "start-dev", "--log-level", "loud"}} {
		if err := run(args, io.Discard); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}

// With all indexes of the schema, visibility takes half of the time of a server in memory. A file may hold so much that a search needs them.
func TestAStoreInMemoryHasFewIndexes(t *testing.T) {
	count := func(o options) int {
		store, err := openStore(o)
		if err != nil {
			t.Fatal(err)
		}
		db, err := openBeside(store)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close() //nolint:errcheck // it was only read
		names, err := listIndexes(db)
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	if n := count(options{}); n != len(keptIndexes) {
		t.Errorf("%d indexes in memory, not %d", n, len(keptIndexes))
	}
	if n := count(options{database: filepath.Join(t.TempDir(), "temporal.db")}); n < 5*len(keptIndexes) {
		t.Errorf("%d indexes in a file", n)
	}
}

// A server keeps its data in the file, and its error names a taken port.
func TestServer(t *testing.T) {
	ports, err := freePorts("127.0.0.1", 2)
	if err != nil {
		t.Fatal(err)
	}
	o, err := parseOptions([]string{
		"--port", strconv.Itoa(ports[0]), "--ui-port", strconv.Itoa(ports[1]), "--log-level", "error",
		"--db-filename", filepath.Join(t.TempDir(), "temporal.db"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := startServer(o)
		if err != nil {
			t.Fatal(err)
		}
		s.stop()
		if _, err := os.Stat(o.database); err != nil {
			t.Fatal(err)
		}
	}
	taken, err := net.Listen("tcp", net.JoinHostPort(o.ip, strconv.Itoa(o.uiPort)))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // the test is over
	if _, err := startServer(o); err == nil {
		t.Fatal("the port of the UI was taken")
	}
}
