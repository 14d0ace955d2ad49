package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func pauseCommand(c *cli) *cobra.Command {
	return pauseOrResume(c, "pause", "paused", "Keep a resource, a kind or an informer from being worked", true)
}

func resumeCommand(c *cli) *cobra.Command {
	return pauseOrResume(c, "resume", "resumed", "Let a resource, a kind or an informer go on", false)
}

// pausedJSON says what was paused or resumed.
type pausedJSON struct {
	What     string `json:"what"`
	Kind     string `json:"kind,omitempty"`
	ObjectID string `json:"object_id,omitempty"`
	Shard    string `json:"shard,omitempty"`
	Paused   bool   `json:"paused"`
	// Namespace is set instead of Kind where it was a namespace's snooze that was ended.
	Namespace string `json:"namespace,omitempty"`
}

// pauseOrResume is one of the two commands.
func pauseOrResume(c *cli, verb, done, short string, paused bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:   verb,
		Short: short,
		Long: short + ".\n\n" +
			"What is informed meanwhile is kept, and attempts that run go on to their end. It holds for all clients.\n" +
			"To resume a kind ends its snooze, too: Work says that an upstream wants less for a while (SnoozeKind).",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("say what: resource, kind or informer")
		},
	}
	c.temporalFlags(cmd)
	say := func(what, kind, id string) error {
		if asked, err := c.json(pausedJSON{What: what, Kind: kind, ObjectID: id, Paused: paused}); asked {
			return err
		}
		name := kind
		if id != "" {
			name += "/" + id
		}
		_, err := fmt.Fprintf(c.out, "%s %s %s\n", what, name, done)
		return err
	}
	add := func(use, short string, args int, do func(ctx context.Context, s *session, args []string) error) *cobra.Command {
		added := &cobra.Command{
			Use: use, Short: short, Args: cobra.ExactArgs(args), ValidArgsFunction: c.completeKindFirst,
			RunE: func(cmd *cobra.Command, args []string) error {
				return c.with(cmd, func(ctx context.Context, s *session) error { return do(ctx, s, args) })
			},
		}
		cmd.AddCommand(added)
		return added
	}
	add("resource KIND ID", "One resource", 2, func(ctx context.Context, s *session, args []string) error {
		command := s.Resume
		if paused {
			command = s.Pause
		}
		if _, err := command(ctx, args[0], args[1]); err != nil {
			return err
		}
		return say("resource", args[0], args[1])
	})
	add("kind KIND", "All resources of a kind; its informer goes on listing", 1, func(ctx context.Context, s *session, args []string) error {
		if err := s.needKind(ctx, args[0]); err != nil {
			return err
		}
		command := s.ResumeKind
		if paused {
			command = s.PauseKind
		}
		if err := command(ctx, args[0]); err != nil {
			return err
		}
		return say("kind", args[0], "")
	})
	var shard string
	informer := add("informer KIND", "The schedule of a kind's informer, or one of its shards; runs that are asked for go on", 1,
		func(ctx context.Context, s *session, args []string) error {
			if err := s.needKind(ctx, args[0]); err != nil {
				return err
			}
			if shard != "" {
				return c.pauseShard(ctx, s, args[0], shard, paused)
			}
			if err := s.needTemporal(ctx); err != nil {
				return err
			}
			command := s.ResumeInformer
			if paused {
				command = s.PauseInformer
			}
			if err := command(ctx, args[0]); err != nil {
				return err
			}
			return say("informer", args[0], "")
		})
	shardFlag(informer, &shard, "only this `shard` of the kind")
	if !paused {
		cmd.AddCommand(c.resumeNamespaceCommand())
	}
	return cmd
}

// pauseShard pauses or resumes one shard. Temporal is not needed: each run asks Postgres.
func (c *cli) pauseShard(ctx context.Context, s *session, kind, shard string, paused bool) error {
	command, done := s.ResumeShard, "resumed"
	if paused {
		command, done = s.PauseShard, "paused"
	}
	if err := command(ctx, kind, shard); err != nil {
		return err
	}
	if asked, err := c.json(pausedJSON{What: "informer", Kind: kind, Shard: shard, Paused: paused}); asked {
		return err
	}
	_, err := fmt.Fprintf(c.out, "informer %s %s\n", inShard(kind, shard), done)
	return err
}

// resumeNamespaceCommand ends a snooze. There is no pause of a namespace to end.
func (c *cli) resumeNamespaceCommand() *cobra.Command {
	return &cobra.Command{
		Use: "namespace NAME", Short: "What is in a namespace that was snoozed, of all kinds", Args: cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd, func(ctx context.Context, s *session) error {
				if err := s.ResumeNamespace(ctx, args[0]); err != nil {
					return err
				}
				if asked, err := c.json(pausedJSON{What: "namespace", Namespace: args[0]}); asked {
					return err
				}
				_, err := fmt.Fprintf(c.out, "namespace %s resumed\n", args[0])
				return err
			})
		},
	}
}
