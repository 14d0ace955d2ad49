// Command delta-temporal is a Temporal development server with its UI, built from the packages of the official server.
//
// Delta's tests, `delta dev` and `make demo` run it on machines without a recent temporal command. It accepts the arguments of `temporal server start-dev` that
// Delta uses, so that both programs are started in the same way. The temporal command cannot be built instead, because its versions with a recent server require
// a nested module that is not published.
//
//	delta-temporal server start-dev --port 7233 --ui-port 8233 --db-filename temporal.db
//	delta-temporal --version
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	uiversion "github.com/temporalio/ui-server/v2/server/version"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/server/common/headers"
	"go.yaml.in/yaml/v3"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "delta-temporal:", err)
		os.Exit(1)
	}
}

// formatVersions returns the versions in the format of the temporal command, because Delta parses both.
func formatVersions() string {
	return fmt.Sprintf("(Server %s, UI %s)", headers.ServerVersion, uiversion.UIVersion)
}

func run(args []string, out io.Writer) error {
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-v") {
		_, err := fmt.Fprintln(out, "delta-temporal", formatVersions())
		return err
	}
	if len(args) < 2 || args[0] != "server" || args[1] != "start-dev" {
		return errors.New("usage: delta-temporal server start-dev [flags], or delta-temporal --version")
	}
	o, err := parseOptions(args[2:])
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	s, err := startServer(o)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "delta-temporal %s\n\nServer: %s:%d\n", formatVersions(), o.ip, o.port)
	if !o.headless {
		_, _ = fmt.Fprintf(out, "UI:     http://%s:%d\n", o.ip, o.uiPort)
	}
	<-stop
	s.stop()
	return nil
}

// options has the flags, with the names and defaults of `temporal server start-dev`.
type options struct {
	ip               string // address that the server, its UI and its internal services listen on
	port, uiPort     int
	headless         bool   // no UI
	logLevel         string // debug, info, warn, error
	database         string // empty: in memory
	searchAttributes map[string]enumspb.IndexedValueType
	dynamicConfig    map[string]any
	pragmas          map[string]string // of SQLite
}

func parseOptions(args []string) (options, error) {
	o := options{
		searchAttributes: map[string]enumspb.IndexedValueType{},
		dynamicConfig:    map[string]any{},
		pragmas:          map[string]string{},
	}
	flags := flag.NewFlagSet("delta-temporal server start-dev", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints the error, and the error of one flag needs no list of all flags
	flags.StringVar(&o.ip, "ip", "127.0.0.1", "`address` to listen on")
	flags.IntVar(&o.port, "port", 7233, "port of the server")
	flags.IntVar(&o.uiPort, "ui-port", 0, "port of the UI (default the server's port plus 1000)")
	flags.BoolVar(&o.headless, "headless", false, "serve no UI")
	flags.StringVar(&o.logLevel, "log-level", "warn", "debug, info, warn or error")
	flags.StringVar(&o.database, "db-filename", "", "`file` to keep data in (default none: data is lost at the end)")
	flags.Func("search-attribute", "custom search attribute, as `name=type`; can be repeated", func(value string) error {
		name, kind, _ := strings.Cut(value, "=")
		known, err := enumspb.IndexedValueTypeFromString(kind)
		if err != nil || name == "" {
			return fmt.Errorf("%q is not a name and a type, such as Customer=Keyword", value)
		}
		o.searchAttributes[name] = known
		return nil
	})
	flags.Func("dynamic-config-value", "dynamic configuration, as `key=JSON`; can be repeated", func(value string) error {
		key, text, _ := strings.Cut(value, "=")
		// YAML is a superset of JSON that distinguishes integers from floats. The server ignores a number of the wrong type.
		var decoded any
		if err := yaml.Unmarshal([]byte(text), &decoded); err != nil || decoded == nil || key == "" {
			return fmt.Errorf("%q is not a key and a JSON value, such as limit.numPendingActivities=10", value)
		}
		o.dynamicConfig[key] = decoded
		return nil
	})
	flags.Func("sqlite-pragma", "pragma of the database file, as `name=value`; can be repeated", func(value string) error {
		name, setting, found := strings.Cut(value, "=")
		if !found || name == "" {
			return fmt.Errorf("%q is not a pragma and a value, such as journal_mode=WAL", value)
		}
		o.pragmas[name] = setting
		return nil
	})
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(os.Stderr)
			flags.Usage()
		}
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if o.uiPort == 0 {
		o.uiPort = o.port + 1000
	}
	for _, flag := range []struct {
		name string
		port int
	}{{"--port", o.port}, {"--ui-port", o.uiPort}} {
		if flag.port < 1 || flag.port > 65535 {
			return o, fmt.Errorf("%s %d is not between 1 and 65535", flag.name, flag.port)
		}
	}
	return o, nil
}
