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

// newPasswordHook returns a function that sets the password of each new connection, or nil if the database's URL has it. Tokens that expire,
// such as those of cloud databases, must be read again for each connection, otherwise the first reconnect would be refused.
func (f *streamFlags) newPasswordHook() func(context.Context, *pgx.ConnConfig) error {
	switch {
	case f.passwordFile != "":
		return func(_ context.Context, config *pgx.ConnConfig) (err error) {
			config.Password, err = readPassword(f.passwordFile)
			return err
		}
	case f.passwordCommand != "":
		return func(ctx context.Context, config *pgx.ConnConfig) (err error) {
			config.Password, err = runPasswordCommand(ctx, f.passwordCommand)
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
	return parseSecretLine("--password-file "+file, text)
}

// runPasswordCommand runs a command with the shell and returns its output. An error quotes the command's standard error, but never its output.
func runPasswordCommand(ctx context.Context, command string) (string, error) {
	shell := exec.CommandContext(ctx, "sh", "-c", command)
	shell.WaitDelay = time.Second // a child of the shell may outlive it and keep its output open
	text, err := shell.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return "", fmt.Errorf("--password-command: %w: %.200s", err, strings.TrimSpace(string(failed.Stderr)))
	}
	if err != nil {
		return "", fmt.Errorf("--password-command: %w", err)
	}
	return parseSecretLine("--password-command", text)
}

func parseSecretLine(source string, text []byte) (string, error) {
	secret := strings.TrimRight(string(text), "\r\n")
	if secret == "" || strings.ContainsAny(secret, "\r\n\x00") {
		return "", fmt.Errorf("%s: it must give one line, the secret", source)
	}
	return secret, nil
}
