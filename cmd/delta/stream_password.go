package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// credentials is what gives each new connection its password, nil where the database's URL does for all. Tokens that expire, such as those
// of cloud databases, would be refused at the first connection that is made again.
func (f *streamFlags) credentials() func(context.Context, *pgx.ConnConfig) error {
	switch {
	case f.passwordFile != "":
		return func(_ context.Context, config *pgx.ConnConfig) (err error) {
			config.Password, err = readPassword(f.passwordFile)
			return err
		}
	case f.passwordCommand != "":
		return func(ctx context.Context, config *pgx.ConnConfig) (err error) {
			config.Password, err = askPassword(ctx, f.passwordCommand)
			return err
		}
	}
	return nil
}

func readPassword(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("--password-file: %w", err)
	}
	return onlyLine("--password-file "+file, text)
}

// askPassword runs a command with the shell. What it writes to its standard error is in the error, and what it prints never is.
func askPassword(ctx context.Context, command string) (string, error) {
	shell := exec.CommandContext(ctx, "sh", "-c", command)
	shell.WaitDelay = time.Second // a child of the shell may outlive it, and keeps its output open
	text, err := shell.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return "", fmt.Errorf("--password-command: %w: %.200s", err, strings.TrimSpace(string(failed.Stderr)))
	}
	if err != nil {
		return "", fmt.Errorf("--password-command: %w", err)
	}
	return onlyLine("--password-command", text)
}

func onlyLine(source string, text []byte) (string, error) {
	secret := strings.TrimRight(string(text), "\r\n")
	if secret == "" || strings.ContainsAny(secret, "\r\n\x00") {
		return "", fmt.Errorf("%s: it must give one line, the secret", source)
	}
	return secret, nil
}
