package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/delta"
)

// sealer is a codec as in docs/security.md, with one key.
type sealer struct{ key cipher.AEAD }

func newSealer() (*sealer, error) {
	block, err := aes.NewCipher(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		return nil, err
	}
	key, err := cipher.NewGCMWithRandomNonce(block)
	return &sealer{key}, err
}

func (s *sealer) EncodeObject(_ context.Context, ref delta.Ref, object []byte) ([]byte, error) {
	return s.key.Seal(nil, nil, object, []byte(ref.String())), nil
}

func (s *sealer) DecodeObject(_ context.Context, ref delta.Ref, encoded []byte) ([]byte, error) {
	return s.key.Open(nil, nil, encoded, []byte(ref.String()))
}

// codecSide is a client with or without a codec. Each has a schema of its own, because the clients of one must agree.
type codecSide struct {
	pool   *pgxpool.Pool
	client *delta.Client
}

func (b *bench) newCodecSide(ctx context.Context, schema string, config *delta.Config) (*codecSide, error) {
	pool, err := b.createSchema(ctx, schema)
	if err != nil {
		return nil, err
	}
	client, err := delta.NewClient(pool, config)
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &codecSide{pool, client}, nil
}

func (s *codecSide) stop(ctx context.Context) {
	_ = s.client.Stop(ctx) // it was not started, so Stop only waits for notifications
	s.pool.Close()
}

// codecFigures compares informs with Config.ObjectCodec and without one.
func codecFigures(ctx context.Context, b *bench) ([]figure, error) {
	codec, err := newSealer()
	if err != nil {
		return nil, err
	}
	with, err := b.newCodecSide(ctx, "bench_encoded", &delta.Config{Logger: b.logger, ObjectCodec: codec, ObjectHashKey: bytes.Repeat([]byte{2}, 32)})
	if err != nil {
		return nil, err
	}
	defer with.stop(ctx)
	without, err := b.newCodecSide(ctx, "bench_plain", &delta.Config{Logger: b.logger})
	if err != nil {
		return nil, err
	}
	defer without.stop(ctx)

	few, many := b.scaleCount(2_000), b.scaleCount(50_000)
	single := func(s *codecSide) side {
		return func(ctx context.Context, turn int) (int, time.Duration, error) {
			return atOnce(ctx, few, func(ctx context.Context, i int) error {
				_, err := s.client.Inform(ctx, newItem(informedKind, fmt.Sprintf("codec-%d-%d", turn, i), 1), nil)
				return err
			})
		}
	}
	set := func(s *codecSide) side {
		return func(ctx context.Context, turn int) (int, time.Duration, error) {
			objects := make([]delta.Object, many)
			for i := range objects {
				objects[i] = newItem(informedKind, fmt.Sprintf("codec-many-%d-%d", turn, i), 1)
			}
			began := time.Now()
			_, err := s.client.InformMany(ctx, objects, nil)
			return many, time.Since(began), err
		}
	}
	const sides = "with AES-256-GCM, against the same without Config.ObjectCodec"
	var figures []figure
	for _, of := range []struct {
		f             figure
		turns         int
		with, without side
	}{
		{
			figure{Name: "Inform with a codec, beside without", What: fmt.Sprintf("Client.Inform of new objects from %d goroutines, %s", informers, sides)},
			12, single(with), single(without),
		},
		{
			figure{Name: "Inform of unchanged objects with a codec, beside without", What: "the same for objects that are there: only hashes are made"},
			12, single(with), single(without),
		},
		{
			figure{Name: fmt.Sprintf("InformMany with a codec, %d new objects, beside without", many), What: "one Client.InformMany, " + sides},
			2, set(with), set(without),
		},
	} {
		of.f.Unit = "/s"
		f, err := compareRates(ctx, b.rounds, of.turns, of.f, of.with, of.without)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", of.f.Name, err)
		}
		figures = append(figures, f)
	}
	return figures, nil
}
