// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
)

// Commands of a Request.
const (
	CommandAdd   = "ADD"
	CommandDel   = "DEL"
	CommandCheck = "CHECK"
)

// maxMessage bounds a request and an answer, in bytes.
const maxMessage = 64 << 10

// Request is what the plugin tells the agent: one line of JSON per connection.
type Request struct {
	Command     string `json:"command"`
	ContainerID string `json:"containerID"`
	// Netns is the path of the network namespace on the host; DEL may have none.
	Netns        string `json:"netns,omitempty"`
	IfName       string `json:"ifName"`
	PodNamespace string `json:"podNamespace"`
	PodName      string `json:"podName"`
	// PodUID is empty with runtimes that don't pass it.
	PodUID string `json:"podUID,omitempty"`
	// IPs that the plugins before gave the pod, the primary one first.
	IPs []netip.Addr `json:"ips,omitempty"`
}

// Response is the agent's answer: one line of JSON.
type Response struct {
	// Captured tells whether the pod's traffic is captured; a pod outside the mesh isn't.
	Captured bool `json:"captured,omitempty"`
	// Error is why the pod can't start, and what to do; empty if it may.
	Error string `json:"error,omitempty"`
}

// ReadMessage reads one JSON message of at most MaxMessage bytes.
func ReadMessage(r io.Reader, into any) error {
	err := json.NewDecoder(io.LimitReader(r, maxMessage)).Decode(into)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// WriteMessage writes one JSON message and a newline.
func WriteMessage(w io.Writer, message any) error { return json.NewEncoder(w).Encode(message) }

// State is what the agent leaves on disk for the plugin, for the time when the agent doesn't answer.
type State struct {
	// Enrolled are the namespaces whose pods the mesh captures, sorted.
	Enrolled []string `json:"enrolled"`
}

// IsEnrolled tells whether pods of the namespace belong to the mesh.
func (s State) IsEnrolled(namespace string) bool { return slices.Contains(s.Enrolled, namespace) }

// ReadState reads the state file; the error is fs.ErrNotExist where no agent ever wrote one.
func ReadState(path string) (State, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return State{}, err
	}
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, fmt.Errorf("state file %s: %w", path, err)
	}
	return s, nil
}
