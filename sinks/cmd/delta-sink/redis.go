package main

import (
	"log/slog"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/chariot-giving/delta/sinks"
	deltaredis "github.com/chariot-giving/delta/sinks/redis"
)

func (d *decoder) buildRedisSink(s redisSection, field string) connector {
	d.requireValue(field+".url", s.URL != "")
	options, err := redis.ParseURL(string(s.URL))
	if err != nil { // it may show the password
		d.addProblemOnce(field+".url", "must be as redis://user:password@host:6379/0, or rediss:// with TLS")
		options = &redis.Options{}
	}
	if s.TLS != nil {
		if options.TLSConfig == nil && err == nil {
			d.addProblemOnce(field+".tls", "is for a URL with rediss:// only")
		}
		config := d.buildTLS(*s.TLS, field+".tls")
		if options.TLSConfig != nil {
			config.ServerName = options.TLSConfig.ServerName
		}
		options.TLSConfig = config
	}
	if strings.ContainsRune(s.StreamPrefix, 0) {
		d.addProblem(field+".stream_prefix", "must not contain a NUL byte")
	}
	if s.MaxLen < 0 {
		d.addProblemOnce(field+".max_len", "must be positive, or 0 for no bound")
	}
	if s.MaxBytes < 0 {
		d.addProblemOnce(field+".max_bytes", "must be positive, or 0 for the default of 512 MiB")
	}
	options.ContextTimeoutEnabled = true
	return func(*slog.Logger) (sinks.Sink, func(), error) {
		client := redis.NewClient(options)
		config := deltaredis.Config{Client: client, MaxLen: int64(s.MaxLen), MaxBytes: s.MaxBytes}
		if s.StreamPrefix != "" {
			config.Stream = func(m sinks.Message) string {
				return s.StreamPrefix + strings.TrimPrefix(deltaredis.DefaultStream(m), defaultPrefix)
			}
		}
		sink, err := deltaredis.New(config)
		return sink, func() { _ = client.Close() }, err
	}
}
