package deployment

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if folder, err = os.MkdirTemp("", "deployment"); err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	return m.Run()
}
