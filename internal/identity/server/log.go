// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"log"
	"strings"

	"github.com/go-logr/logr"
)

// quiet sends net/http's own log (mostly failed handshakes of port scanners) to the verbose log.
func quiet(l logr.Logger) *log.Logger { return log.New(lineWriter{l}, "", 0) }

type lineWriter struct{ log logr.Logger }

// Write implements io.Writer.
func (w lineWriter) Write(p []byte) (int, error) {
	w.log.V(1).Info(strings.TrimSpace(string(p)))
	return len(p), nil
}
