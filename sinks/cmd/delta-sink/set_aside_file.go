package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/chariot-giving/delta/sinks"
)

// setAsideFile stores messages that cannot be delivered, one JSON object a line. A message can be there twice, with the same id, because
// the process may die after writing the line and before confirming the source.
type setAsideFile struct {
	path, relay string
	mu          sync.Mutex
}

// setAsideLine is a stored message. Body is that of the message if it is JSON; any other is in BodyBase64.
type setAsideLine struct {
	At         time.Time         `json:"at"`
	Relay      string            `json:"relay"`
	Reason     string            `json:"reason"`
	ID         string            `json:"id"`
	Key        string            `json:"key,omitempty"`
	Subject    string            `json:"subject"`
	Type       string            `json:"type"`
	Time       time.Time         `json:"time"`
	Headers    map[string]string `json:"headers,omitempty"`
	Body       json.RawMessage   `json:"body,omitempty"`
	BodyBase64 []byte            `json:"body_base64,omitempty"`
}

// appendMessage returns when the line is on the disk. It opens the file each time, so that the file may be moved at any time.
func (a *setAsideFile) appendMessage(_ context.Context, m sinks.Message, reason error) error {
	line := setAsideLine{
		At: time.Now().UTC(), Relay: a.relay, Reason: reason.Error(), ID: m.ID, Key: m.Key, Subject: m.Subject, Type: m.Type, Time: m.Time, Headers: m.Headers,
	}
	if json.Valid(m.Body) {
		line.Body = m.Body
	} else {
		line.BodyBase64 = m.Body
	}
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, missing := os.Stat(a.path)
	f, err := os.OpenFile(a.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(appendLine(f, append(text, '\n')), f.Close())
	if err == nil && errors.Is(missing, fs.ErrNotExist) {
		err = syncFolder(filepath.Dir(a.path))
	}
	return err
}

// appendLine writes a line. If the last line was cut off, by a full disk or the death of the process, it first writes a line break.
func appendLine(f *os.File, line []byte) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if size := info.Size(); size > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			line = append([]byte{'\n'}, line...)
		}
	}
	if _, err := f.Write(line); err != nil {
		return err
	}
	return f.Sync()
}

// syncFolder makes the name of a new file durable.
func syncFolder(path string) error {
	folder, err := os.Open(path) //nolint:gosec // the user names it
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
