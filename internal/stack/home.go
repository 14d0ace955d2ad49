package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/semver"

	"github.com/chariot-giving/delta/internal/flock"
)

// ErrLocked means that a directory is in use by another process.
type ErrLocked struct {
	Dir string
	PID int // 0 when unknown
}

func (e *ErrLocked) Error() string {
	if e.PID == 0 {
		return e.Dir + " is in use by another process: stop it first, or use another directory"
	}
	return fmt.Sprintf("%s is in use by process %d: stop it first (kill %d), or use another directory", e.Dir, e.PID, e.PID)
}

// DefaultDir is where a stack that survives restarts lives: /var/lib/delta
// for root, whose home the unprivileged Postgres could not enter, and the
// user's data directory otherwise.
func DefaultDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/delta", nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "delta"), nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no directory for data: %w; name one", err)
	}
	if runtime.GOOS == "darwin" {
		return filepath.Join(user, "Library", "Application Support", "delta"), nil
	}
	return filepath.Join(user, ".local", "share", "delta"), nil
}

// home is the directory of one stack, locked while we have it.
type home struct {
	dir       string
	ephemeral bool
	lock      *os.File
}

func (h *home) path(name string) string { return filepath.Join(h.dir, name) }
func (h *home) portsFile() string       { return h.path("ports.json") }
func (h *home) dataDir() string         { return h.path("postgres/data") }

// temporalDatabase is the file of a server. Its name holds the minor version, because a server does not migrate the SQLite
// store of another one and would fail on it, sooner or later.
func (h *home) temporalDatabase(server string) string {
	return h.path("temporal-" + strings.TrimPrefix(semver.MajorMinor("v"+server), "v") + ".db")
}

// openHome makes and locks the directory of a stack.
func openHome(opts Options) (*home, error) {
	if opts.Ephemeral {
		return openEphemeral(opts.Dir)
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, err
	}
	// Postgres names its data directory by the real path, so we do as well.
	mode := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o755 // Postgres runs as somebody else and has to pass through
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return nil, fmt.Errorf("making the stack's directory: %w", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	lock, err := lockFile(dir, filepath.Join(dir, "delta.lock"))
	if err != nil {
		return nil, err
	}
	return &home{dir: dir, lock: lock}, nil
}

// lockFile opens and locks a file, and writes our pid into it.
func lockFile(dir, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	got, err := flock.Try(f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	if !got {
		defer func() { _ = f.Close() }()
		return nil, &ErrLocked{Dir: dir, PID: holder(path)}
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return f, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// holder reads the pid of who holds a lock. Between taking the lock and
// writing the pid lies a moment, hence the second look.
func holder(path string) int {
	for range 20 {
		if b, err := os.ReadFile(path); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				return pid
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0
}

func ephemeralPattern() string { return fmt.Sprintf("delta-stack-%d-", os.Geteuid()) }

func openEphemeral(parent string) (*home, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	parent, err := filepath.Abs(parent)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	if parent, err = filepath.EvalSymlinks(parent); err != nil {
		return nil, err
	}
	scavenge(parent)
	dir, err := os.MkdirTemp(parent, ephemeralPattern())
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	// Locked before it has its name: whoever sees delta.lock sees it locked,
	// so nobody can mistake a directory that is being made for a left one.
	unnamed := filepath.Join(dir, "delta.lock.new")
	lock, err := lockFile(dir, unnamed)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(unnamed, filepath.Join(dir, "delta.lock")); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return &home{dir: dir, ephemeral: true, lock: lock}, nil
}

// scavenge removes what killed ephemeral stacks of this user left.
func scavenge(parent string) {
	left, _ := filepath.Glob(filepath.Join(parent, ephemeralPattern()+"*"))
	for _, dir := range left {
		lock := filepath.Join(dir, "delta.lock")
		if !ownedByUs(dir) || !ownedByUs(lock) {
			continue
		}
		f, err := os.OpenFile(lock, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if got, err := flock.Try(f); err == nil && got {
			h := &home{dir: dir, ephemeral: true, lock: f}
			h.recoverAll(func(string, ...any) {})
			_ = h.close()
			continue
		}
		_ = f.Close()
	}
}

// close gives the directory back; an ephemeral one is removed, while the lock
// is still held.
func (h *home) close() error {
	var errs []error
	if h.ephemeral {
		errs = append(errs, os.RemoveAll(h.dir))
	}
	errs = append(errs, h.lock.Close())
	return errors.Join(errs...)
}
