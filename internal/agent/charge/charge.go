// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package charge says which of a node's agents is in charge of its pods. There are two while a node proxy is replaced:
// one alone writes the rules in pods' network namespaces and answers the CNI plugin. Being in charge is a lock of the
// kernel's on a file of the node's, so it ends with its process, whatever that dies of. Beside it is a file in which
// the one in charge says how far it has got, for the one that was before.
package charge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

const (
	lockFile = "charge.lock"
	wordFile = "charge.json"
)

// State is how far the agent in charge has got.
type State string

// States.
const (
	// Took charge; its proxy may not serve all pods yet.
	Took State = "Took"
	// Serves all captured pods: whoever did before need not any longer.
	Serves State = "Serves"
	// Left the node with the whole mesh: no pod is captured any more.
	Left State = "Left"
)

// Word is what the agent in charge said last.
type Word struct {
	Agent string `json:"agent"`
	State State  `json:"state"`
}

// Charge is one agent's view.
type Charge struct {
	dir, agent string
	held       *os.File
}

// New is for an agent, by the UID of its pod, on the node whose directory this is. It takes nothing yet.
func New(dir, agent string) *Charge { return &Charge{dir: dir, agent: agent} }

// Take tries to be in charge; it doesn't wait for another agent that is.
func (c *Charge) Take() (bool, error) {
	f, err := c.lock(unix.LOCK_EX)
	if err != nil || f == nil {
		return false, err
	}
	c.held = f
	return true, c.Say(Took)
}

// Say how far the agent has got that is in charge.
func (c *Charge) Say(s State) error {
	text, err := json.Marshal(Word{Agent: c.agent, State: s})
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(c.dir, wordFile), text, 0o600); err != nil {
		return fmt.Errorf("say who is in charge of the node's pods: %w", err)
	}
	return nil
}

// Give it up, if this agent is in charge.
func (c *Charge) Give() error {
	if c.held == nil {
		return nil
	}
	err := c.held.Close()
	c.held = nil
	return err
}

// Other is what another agent said last, and whether any is in charge now. An empty Word: none has said anything since
// this one.
func (c *Charge) Other() (w Word, taken bool, err error) {
	f, err := c.lock(unix.LOCK_SH)
	if err != nil {
		return Word{}, false, err
	}
	if taken = f == nil; !taken {
		_ = f.Close()
	}
	text, err := os.ReadFile(filepath.Join(c.dir, wordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Word{}, taken, nil
	}
	if err != nil {
		return Word{}, taken, err
	}
	if err := json.Unmarshal(text, &w); err != nil {
		return Word{}, taken, fmt.Errorf("%s: %w", wordFile, err)
	}
	if w.Agent == c.agent {
		return Word{}, taken, nil
	}
	return w, taken, nil
}

// lock returns nothing where others have the lock.
func (c *Charge) lock(how int) (*os.File, error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil { // the CNI plugin has its socket there
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(c.dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("who is in charge of the node's pods: %w", err)
	}
	switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, f.Close()
	case err != nil:
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return f, nil
}
