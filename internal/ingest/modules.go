// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"slices"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/wasm"
)

// mostWasmConfig is what a module may be given.
const mostWasmConfig = 16 << 10

// module of a ConfigMap, or why there is none.
type module struct {
	code            []byte
	marked          bool
	digest, problem string
}

// readModule judges the module of a ConfigMap, once for all who refer to it.
func (i *Ingest) readModule(c *memo.Ctx, key cluster.Key) *module {
	cm, ok := i.store.ConfigMaps.Get(c, key)
	if !slices.Contains(i.readable.Get(c, key.Namespace), cluster.Reference{Name: key.Name, Module: true}) {
		return &module{problem: fmt.Sprintf("ConfigMap %s is not read: the HTTPExtensions of namespace %s refer to more "+
			"than %d ConfigMaps", key, key.Namespace, cluster.MostModules)}
	}
	if !ok {
		return &module{problem: fmt.Sprintf("ConfigMap %s does not exist", key)}
	}
	code, has := cm.BinaryData[cluster.ModuleKey]
	if !has {
		return &module{problem: fmt.Sprintf("ConfigMap %s has no key %s in binaryData", key, cluster.ModuleKey)}
	}
	out := &module{digest: wasm.Digest(code)}
	m, err := wasm.Judge(code)
	if err != nil {
		out.problem = fmt.Sprintf("the module in ConfigMap %s: %s", key, err)
		return out
	}
	out.code, out.marked = m.Code, m.Marked
	return out
}

func (i *Ingest) wasm(c *memo.Ctx, namespace string, w *v1alpha1.WasmExtension) (*model.Wasm, *Verdict) {
	key := cluster.Key{Namespace: namespace, Name: w.ConfigMapRef.Name}
	m := i.moduleOf.Get(c, key)
	switch {
	case w.SHA256 != "" && m.digest != "" && m.digest != w.SHA256:
		return nil, invalidExtension(fmt.Sprintf("wasm.sha256: the module in ConfigMap %s has SHA-256 %s: say that, or "+
			"put the one that is meant there", key, m.digest))
	case m.problem != "":
		return nil, invalidExtension("wasm.configMapRef: " + m.problem)
	case len(w.Config) > mostWasmConfig:
		return nil, invalidExtension(fmt.Sprintf("wasm.config can have %d bytes at most", mostWasmConfig))
	}
	return &model.Wasm{
		Code: m.code, Digest: m.digest, Marked: m.marked, Config: w.Config, Root: w.RootID,
		Request: shown(w.Request), Response: shown(w.Response),
	}, nil
}

func shown(in *v1alpha1.WasmMessage) (out model.Processed) {
	if in == nil {
		return out
	}
	out.Headers = true
	if in.Body == v1alpha1.WasmBodyStreamed {
		out.Body = model.BodyStreamed
	}
	return out
}
