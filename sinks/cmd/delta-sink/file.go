package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// file is sink.yaml. docs/sinks.md documents each field, and a test compares the names.
type file struct {
	Relays []relaySection `yaml:"relays"`
}

type relaySection struct {
	Name          string               `yaml:"name"`
	Source        sourceSection        `yaml:"source"`
	Sink          sinkSection          `yaml:"sink"`
	Filter        filterSection        `yaml:"filter"`
	Retry         retrySection         `yaml:"retry"`
	Undeliverable undeliverableSection `yaml:"undeliverable"`
	Limits        limitsSection        `yaml:"limits"`
}

// sourceSection has exactly one of its fields.
type sourceSection struct {
	Stream    *streamSection   `yaml:"stream"`
	Log       *logSection      `yaml:"log"`
	MessageDB *categorySection `yaml:"messagedb"`
}

type streamSection struct {
	DatabaseURL   secret              `yaml:"database_url"`
	Slot          string              `yaml:"slot"`
	Publications  []string            `yaml:"publications"`
	Keys          map[string][]string `yaml:"keys"`
	SchemaChanges bool                `yaml:"schema_changes"`
	IDPrefix      string              `yaml:"id_prefix"`
}

type logSection struct {
	DatabaseURL secret `yaml:"database_url"`
	Consumer    string `yaml:"consumer"`
	Members     int    `yaml:"members"`
	Member      int    `yaml:"member"`
	Restart     bool   `yaml:"restart"`
	IDPrefix    string `yaml:"id_prefix"`
}

type categorySection struct {
	DatabaseURL secret `yaml:"database_url"`
	Schema      string `yaml:"schema"`
	Category    string `yaml:"category"`
	Consumer    string `yaml:"consumer"`
	Members     int    `yaml:"members"`
	Member      int    `yaml:"member"`
	Restart     bool   `yaml:"restart"`
	IDPrefix    string `yaml:"id_prefix"`
}

// sinkSection has exactly one of its fields.
type sinkSection struct {
	Webhook   *webhookSection   `yaml:"webhook"`
	NATS      *natsSection      `yaml:"nats"`
	Kafka     *kafkaSection     `yaml:"kafka"`
	Redis     *redisSection     `yaml:"redis"`
	MessageDB *messageDBSection `yaml:"messagedb"`
}

type webhookSection struct {
	URL         secret            `yaml:"url"`
	Secrets     []secret          `yaml:"secrets"`
	Headers     map[string]secret `yaml:"headers"`
	Concurrency int               `yaml:"concurrency"`
}

type natsSection struct {
	Servers       []secret    `yaml:"servers"`
	Credentials   string      `yaml:"credentials"`
	Token         secret      `yaml:"token"`
	TLS           *tlsSection `yaml:"tls"`
	SubjectPrefix string      `yaml:"subject_prefix"`
}

type kafkaSection struct {
	Brokers     []string     `yaml:"brokers"`
	TLS         *tlsSection  `yaml:"tls"`
	SASL        *saslSection `yaml:"sasl"`
	TopicPrefix string       `yaml:"topic_prefix"`
}

type redisSection struct {
	URL          secret      `yaml:"url"`
	TLS          *tlsSection `yaml:"tls"`
	StreamPrefix string      `yaml:"stream_prefix"`
	MaxLen       int         `yaml:"max_len"`
	MaxBytes     int         `yaml:"max_bytes"`
}

type messageDBSection struct {
	DatabaseURL secret `yaml:"database_url"`
	Schema      string `yaml:"schema"`
	Category    string `yaml:"category"`
}

// tlsSection names PEM files. If it names none, the certificates of the system are used.
type tlsSection struct {
	CA   string `yaml:"ca"`
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

type saslSection struct {
	Mechanism string `yaml:"mechanism"`
	User      secret `yaml:"user"`
	Password  secret `yaml:"password"`
}

// filterSection selects messages that match each of its lists, by any of the list's values. A list that is left out matches all.
type filterSection struct {
	Tables     []string `yaml:"tables"`
	Kinds      []string `yaml:"kinds"`
	Namespaces []string `yaml:"namespaces"`
	Types      []string `yaml:"types"`
}

type retrySection struct {
	Shortest    time.Duration `yaml:"shortest"`
	Longest     time.Duration `yaml:"longest"`
	MaxAttempts int           `yaml:"max_attempts"`
	Timeout     time.Duration `yaml:"timeout"`
}

type undeliverableSection struct {
	Policy string `yaml:"policy"`
	File   string `yaml:"file"`
}

type limitsSection struct {
	BatchSize       int           `yaml:"batch_size"`
	Parallelism     int           `yaml:"parallelism"`
	Window          int           `yaml:"window"`
	WindowBytes     int           `yaml:"window_bytes"`
	ConfirmInterval time.Duration `yaml:"confirm_interval"`
}

// loadFile reads and validates a file, and returns its relays. It connects to nothing.
func loadFile(name string) ([]*relay, error) {
	content, err := os.ReadFile(name) //nolint:gosec // the user names it
	if err != nil {
		return nil, fmt.Errorf("--file: %w", err)
	}
	document := yaml.NewDecoder(bytes.NewReader(content))
	var root, more yaml.Node
	if err := document.Decode(&root); errors.Is(err, io.EOF) {
		return nil, &fileError{name, []problem{{1, "relays", "is required"}}}
	} else if err != nil {
		return nil, &fileError{name, []problem{syntaxProblem(err)}}
	}
	if err := document.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, &fileError{name, []problem{{more.Line, "", "a file has one document: list more relays in it"}}}
	}
	var f file
	d := &decoder{lines: map[string]int{}}
	d.decodeNode(root.Content[0], reflect.ValueOf(&f).Elem(), "")
	relays := d.buildRelays(f)
	return relays, d.toError(name)
}

var syntaxErrorPattern = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)

// syntaxProblem moves the line number of an error of the package yaml to where all problems have it.
func syntaxProblem(err error) problem {
	if parts := syntaxErrorPattern.FindStringSubmatch(err.Error()); parts != nil {
		if line, err := strconv.Atoi(parts[1]); err == nil {
			return problem{line, "", "is no YAML: " + parts[2]}
		}
	}
	return problem{1, "", err.Error()}
}
