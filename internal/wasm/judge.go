// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package wasm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// MostBytes is how long a module may be.
const MostBytes = 1 << 20

// Module is one that proxies can run.
type Module struct {
	// Code is what proxies get: the module without what is for its author's tools, with bounds, and framed.
	Code []byte
	// Marked: it changes names.ModuleMark in what it is shown, by which proxies know that it is there.
	Marked bool
	// Memory is how many bytes it may have.
	Memory int
}

// Digest of a module as its author has it: its SHA-256 in hexadecimal digits.
func Digest(module []byte) string {
	sum := sha256.Sum256(module)
	return hex.EncodeToString(sum[:])
}

// Judge says what proxies get of a module, or what is wrong with it, in words for its author. It remembers what it said
// of the last ones.
func Judge(module []byte) (*Module, error) {
	if len(module) > MostBytes {
		return nil, fmt.Errorf("a module can have %d bytes at most, and this one has %d", MostBytes, len(module))
	}
	return remembered.judge(Digest(module), module)
}

// mostRemembered bounds what is remembered: an edit has few modules judged again, and each may have a MiB.
const mostRemembered = 32

// remembered are verdicts by digest. One module is judged at a time, since that may take some 100 MB for a while.
var remembered = memory{of: map[string]verdict{}}

type verdict struct {
	module *Module
	err    error
}

type memory struct {
	mu     sync.Mutex
	of     map[string]verdict
	oldest []string
}

func (m *memory) judge(digest string, module []byte) (*Module, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, known := m.of[digest]
	if !known {
		v.module, v.err = judge(module)
		m.of[digest] = v
		if m.oldest = append(m.oldest, digest); len(m.oldest) > mostRemembered {
			delete(m.of, m.oldest[0])
			m.oldest = m.oldest[1:]
		}
	}
	return v.module, v.err
}

// judge measures first: the compiler believes what a module says of its own size.
func judge(module []byte) (*Module, error) {
	m, err := bound(module)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	// Interpreted code is checked like any other, and needs no executable memory. None of it is run.
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().
		WithCoreFeatures(api.CoreFeaturesV2).WithDebugInfoEnabled(false).WithMemoryLimitPages(mostPages))
	defer func() { _ = r.Close(ctx) }()
	compiled, err := r.CompileModule(ctx, m.Code)
	if err != nil {
		return nil, fmt.Errorf("it is no valid WebAssembly: %w", err)
	}
	if err := links(compiled); err != nil {
		return nil, err
	}
	m.Code, m.Marked = frame(m.Code)
	return m, nil
}

// links tells what keeps Envoy from taking a valid module.
func links(m wazero.CompiledModule) error {
	for _, f := range m.ImportedFunctions() {
		module, name, _ := f.Import()
		want, known := imports[module][name]
		switch {
		case !known:
			return fmt.Errorf("it imports %s.%s, which no proxy has: it must import functions of Proxy-Wasm 0.2 only",
				printable(module), printable(name))
		case signature(f) != want:
			return fmt.Errorf("it imports %s.%s as a function of another kind: build it for Proxy-Wasm 0.2", module, name)
		}
	}
	if _, has := m.ExportedMemories()["memory"]; !has {
		return errors.New("it doesn't export its memory, as memory")
	}
	exported := m.ExportedFunctions()
	for name, f := range exported {
		if want, known := exports[name]; known && signature(f) != want {
			return fmt.Errorf("it exports %s as a function of another kind: build it for Proxy-Wasm 0.2", name)
		}
	}
	if !hasAny(exported, abiVersions...) {
		return errors.New("it exports neither proxy_abi_version_0_2_0 nor proxy_abi_version_0_2_1: build it for " +
			"Proxy-Wasm 0.2")
	}
	if hasAny(exported, "proxy_abi_version_0_1_0", "proxy_abi_version_0_2_0") &&
		hasAny(exported, "proxy_abi_version_0_2_1") {
		return errors.New("it exports several versions of Proxy-Wasm: build it for one")
	}
	if !hasAny(exported, "proxy_on_memory_allocate", "malloc") {
		return errors.New("it exports neither proxy_on_memory_allocate nor malloc, by which it is given texts")
	}
	return nil
}

func hasAny(exported map[string]api.FunctionDefinition, names ...string) bool {
	for _, name := range names {
		if exported[name] != nil {
			return true
		}
	}
	return false
}

// signature is a letter for each parameter, and after a colon for each result.
func signature(f api.FunctionDefinition) string {
	out := []byte{}
	for _, t := range f.ParamTypes() {
		out = append(out, letter(t))
	}
	out = append(out, ':')
	for _, t := range f.ResultTypes() {
		out = append(out, letter(t))
	}
	return string(out)
}

func letter(t api.ValueType) byte {
	switch t {
	case api.ValueTypeI32:
		return 'i'
	case api.ValueTypeI64:
		return 'l'
	case api.ValueTypeF64:
		return 'd'
	}
	return '?'
}

// printable is a name that may have anything in it, for a message.
func printable(s string) string { return fmt.Sprintf("%.64q", s) }
