package sinks_test

import (
	"testing"

	"github.com/chariot-giving/delta/internal/cdctest"
)

func TestMain(m *testing.M) { cdctest.Main(m) }
