package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func pauseCommand(c *cli) *cobra.Command {
	return pauseOrResume(c, "pause", "paused", "Pause work on a resource or a kind, or pause an informer", true)
}

func resumeCommand(c *cli) *cobra.Command {
	return pauseOrResume(c, "resume", "resumed", "Resume a resource, a kind or an informer", false)
}

// pausedJSON is the output of pause and resume with --output json.
type pausedJSON struct {
	What     string `json:"what"`
	Kind     string `json:"kind,omitempty"`
	ObjectID string `json:"object_id,omitempty"`
	Shard    string `json:"shard,omitempty"`
	Paused   bool   `json:"paused"`
	// Namespace is set instead of Kind if the command ended the snooze of a namespace.
	Namespace string `json:"namespace,omitempty"`
}

// pauseOrResume returns one of the two commands.
func pauseOrResume(c *cli, verb, done, short string, paused bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:   verb,
		Short: short,
		Long: short + ".\n\n" +
			"A pause holds for all clients. Changes that are informed meanwhile are stored, and running attempts finish.\n" +
			"Resuming a kind also ends a snooze that Work started with SnoozeKind.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("missing subcommand: resource, kind or informer")
		},
	}
	c.addTemporalFlags(cmd)
	say := func(what, kind, id string) error {
		if asked, err := c.printJSON(pausedJSON{What: what, Kind: kind, ObjectID: id, Paused: paused}); asked {
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
				return c.withSession(cmd, func(ctx context.Context, s *session) error { return do(ctx, s, args) })
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
	add("kind KIND", "All resources of a kind; its informer keeps listing", 1, func(ctx context.Context, s *session, args []string) error {
		if err := s.requireKind(ctx, args[0]); err != nil {
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
	informer := add("informer KIND", "The schedule of a kind's informer, or one of its shards; delta inform still runs it", 1,
		func(ctx context.Context, s *session, args []string) error {
			if err := s.requireKind(ctx, args[0]); err != nil {
				return err
			}
			if shard != "" {
				return c.pauseShard(ctx, s, args[0], shard, paused)
			}
			if err := s.requireTemporal(ctx); err != nil {
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
	addShardFlag(informer, &shard, "only this `shard` of the kind")
	if !paused {
		cmd.AddCommand(c.resumeNamespaceCommand())
	}
	return cmd
}

// pauseShard pauses or resumes one shard. It does not need Temporal, because each run reads the pause from Postgres.
func (c *cli) pauseShard(ctx context.Context, s *session, kind, shard string, paused bool) error {
	command, done := s.ResumeShard, "resumed"
	if paused {
		command, done = s.PauseShard, "paused"
	}
	if err := command(ctx, kind, shard); err != nil {
		return err
	}
	if asked, err := c.printJSON(pausedJSON{What: "informer", Kind: kind, Shard: shard, Paused: paused}); asked {
		return err
	}
	_, err := fmt.Fprintf(c.out, "informer %s %s\n", formatShard(kind, shard), done)
	return err
}

// resumeNamespaceCommand ends the snooze of a namespace. It has no counterpart in pause, because a namespace cannot be paused.
func (c *cli) resumeNamespaceCommand() *cobra.Command {
	return &cobra.Command{
		Use: "namespace NAME", Short: "All resources of a snoozed namespace, of all kinds", Args: cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withSession(cmd, func(ctx context.Context, s *session) error {
				if err := s.ResumeNamespace(ctx, args[0]); err != nil {
					return err
				}
				if asked, err := c.printJSON(pausedJSON{What: "namespace", Namespace: args[0]}); asked {
					return err
				}
				_, err := fmt.Fprintf(c.out, "namespace %s resumed\n", args[0])
				return err
			})
		},
	}
}
