package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/kafka"
	deltanats "github.com/chariot-giving/delta/sinks/nats"
	"github.com/chariot-giving/delta/sinks/webhook"
)

// connector creates the sink of a relay.
type connector = func(logger *slog.Logger) (sinks.Sink, func(), error)

func releaseNothing() {}

func indexedField(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

func (d *decoder) buildWebhookSink(s webhookSection, field string) connector {
	d.requireValue(field+".url", s.URL != "")
	config := webhook.Config{URL: string(s.URL), Concurrency: s.Concurrency, Headers: http.Header{}}
	for i, one := range s.Secrets {
		d.requireValue(indexedField(field+".secrets", i), one != "")
		config.Secrets = append(config.Secrets, string(one))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		value := s.Headers[name]
		if strings.ContainsAny(name+string(value), "\r\n\x00") || name == "" {
			d.addProblemOnce(field+".headers."+name, "must be one line")
		}
		config.Headers.Set(name, string(value))
	}
	sink, err := webhook.New(config)
	d.addInvalid(err, field, map[string]string{"URL": "url", "Secrets": "secrets", "Concurrency": "concurrency"})
	return func(*slog.Logger) (sinks.Sink, func(), error) { return sink, releaseNothing, err }
}

// subjectPrefixPattern matches a subject without wildcards, see https://docs.nats.io/nats-concepts/subjects.
var subjectPrefixPattern = regexp.MustCompile(`^[^\s.*>]+(\.[^\s.*>]+)*$`)

func (d *decoder) buildNATSSink(s natsSection, name, field string) connector {
	d.requireValue(field+".servers", len(s.Servers) > 0)
	servers := make([]string, len(s.Servers))
	for i, server := range s.Servers {
		u, err := url.Parse(string(server))
		if err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls" && u.Scheme != "ws" && u.Scheme != "wss" {
			d.addProblemOnce(indexedField(field+".servers", i), "must be as nats://host:4222 or tls://host:4222")
		}
		servers[i] = string(server)
	}
	if s.SubjectPrefix != "" && !subjectPrefixPattern.MatchString(s.SubjectPrefix) {
		d.addProblem(field+".subject_prefix", "must be parts with dots between them, without white space, * and >, and is %q", s.SubjectPrefix)
	}
	options := []nats.Option{
		// Wait for a server that is away, also at the start.
		nats.Name("delta-sink " + name), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true),
	}
	if s.Credentials != "" {
		if _, err := os.Stat(s.Credentials); err != nil {
			d.addProblem(field+".credentials", "%s", err)
		}
		options = append(options, nats.UserCredentials(s.Credentials))
	}
	if s.Token != "" {
		options = append(options, nats.Token(string(s.Token)))
	}
	if s.TLS != nil {
		options = append(options, nats.Secure(d.buildTLS(*s.TLS, field+".tls")))
	}
	return func(logger *slog.Logger) (sinks.Sink, func(), error) {
		connection, err := nats.Connect(strings.Join(servers, ","), append(options,
			nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
				logger.Warn("the connection to NATS is lost; it is made again", "error", err)
			}),
			nats.ReconnectHandler(func(*nats.Conn) { logger.Info("connected to NATS again") }),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
				logger.Warn("NATS reports an error", "error", err)
			}),
		)...)
		if err != nil {
			return nil, nil, err
		}
		js, err := jetstream.New(connection)
		if err != nil {
			connection.Close()
			return nil, nil, err
		}
		config := deltanats.Config{JetStream: js}
		if s.SubjectPrefix != "" {
			config.Subject = func(m sinks.Message) string {
				return s.SubjectPrefix + strings.TrimPrefix(deltanats.DefaultSubject(m), defaultPrefix)
			}
		}
		sink, err := deltanats.New(config)
		return sink, connection.Close, err
	}
}

// defaultPrefix begins the default subjects and topics.
const defaultPrefix = "delta"

var topicPrefixPattern = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,200}$`)

const maxTopic = 249

func (d *decoder) buildKafkaSink(s kafkaSection, field string) connector {
	d.requireValue(field+".brokers", len(s.Brokers) > 0)
	options := []kgo.Opt{kgo.SeedBrokers(s.Brokers...), kgo.AllowIdempotentProduceCancellation()}
	if s.TopicPrefix != "" && !topicPrefixPattern.MatchString(s.TopicPrefix) {
		d.addProblem(field+".topic_prefix", "must be letters, digits, '.', '_' and '-', at most 200, and is %q", s.TopicPrefix)
	}
	if s.TLS != nil {
		options = append(options, kgo.DialTLSConfig(d.buildTLS(*s.TLS, field+".tls")))
	}
	if s.SASL != nil {
		if mechanism := d.buildSASL(*s.SASL, field+".sasl"); mechanism != nil {
			options = append(options, kgo.SASL(mechanism))
		}
	}
	if len(s.Brokers) > 0 {
		if err := kgo.ValidateOpts(options...); err != nil {
			d.addProblemOnce(field, "%s", err)
		}
	}
	return func(*slog.Logger) (sinks.Sink, func(), error) {
		client, err := kgo.NewClient(options...)
		if err != nil {
			return nil, nil, err
		}
		config := kafka.Config{Client: client}
		if s.TopicPrefix != "" {
			config.Topic = func(m sinks.Message) string {
				topic := s.TopicPrefix + strings.TrimPrefix(kafka.DefaultTopic(m), defaultPrefix)
				return topic[:min(len(topic), maxTopic)]
			}
		}
		sink, err := kafka.New(config)
		return sink, client.Close, err
	}
}

func (d *decoder) buildSASL(s saslSection, field string) sasl.Mechanism {
	d.requireValue(field+".user", s.User != "")
	d.requireValue(field+".password", s.Password != "")
	scrammed := scram.Auth{User: string(s.User), Pass: string(s.Password)}
	switch s.Mechanism {
	case "plain":
		return plain.Auth{User: string(s.User), Pass: string(s.Password)}.AsMechanism()
	case "scram-sha-256":
		return scrammed.AsSha256Mechanism()
	case "scram-sha-512":
		return scrammed.AsSha512Mechanism()
	}
	d.addProblemOnce(field+".mechanism", "must be plain, scram-sha-256 or scram-sha-512, and is %q", s.Mechanism)
	return nil
}

func (d *decoder) buildTLS(s tlsSection, field string) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CA != "" {
		text, err := os.ReadFile(s.CA)
		config.RootCAs = x509.NewCertPool()
		if err != nil {
			d.addProblem(field+".ca", "%s", err)
		} else if !config.RootCAs.AppendCertsFromPEM(text) {
			d.addProblem(field+".ca", "has no certificate in PEM: %s", s.CA)
		}
	}
	switch {
	case (s.Cert == "") != (s.Key == ""):
		d.addProblem(field, "cert and key belong together")
	case s.Cert != "":
		pair, err := tls.LoadX509KeyPair(s.Cert, s.Key)
		if err != nil {
			d.addProblem(field+".cert", "%s", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}
