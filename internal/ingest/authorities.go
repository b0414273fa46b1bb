// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
)

// MostCABytes bounds the certificates of authorities in one ConfigMap.
const MostCABytes = 32 << 10

// authorities are the certificates of a ConfigMap in PEM, or why there are none.
type authorities struct {
	pem, problem string
}

// readableConfigMaps are the ConfigMaps of a namespace that are read.
func (i *Ingest) readableConfigMaps(c *memo.Ctx, namespace string) []cluster.Reference {
	referred := map[cluster.Reference]bool{}
	note := func(o client.Object) {
		for _, ref := range cluster.References(o) {
			referred[ref] = true
		}
	}
	for _, key := range i.store.BackendTLSPolicies.By(c, cluster.ByNamespace, namespace) {
		if p, ok := i.store.BackendTLSPolicies.Get(c, key); ok {
			note(p)
		}
	}
	for _, key := range i.store.XBackends.By(c, cluster.ByNamespace, namespace) {
		if b, ok := i.store.XBackends.Get(c, key); ok {
			note(b)
		}
	}
	for _, key := range i.store.Extensions.By(c, cluster.ByNamespace, namespace) {
		if e, ok := i.store.Extensions.Get(c, key); ok {
			note(e)
		}
	}
	return cluster.Readable(referred)
}

func (i *Ingest) authorities(c *memo.Ctx, key cluster.Key) (out authorities) {
	cm, ok := i.store.ConfigMaps.Get(c, key)
	text, has := "", false
	if ok {
		text, has = cm.Data[cluster.CAKey]
	}
	if !slices.Contains(i.readable.Get(c, key.Namespace), cluster.Reference{Name: key.Name}) {
		out.problem = fmt.Sprintf("ConfigMap %s is not read: the policies and XBackends of namespace %s refer to more than "+
			"%d ConfigMaps", key, key.Namespace, cluster.MostReferences)
		return out
	}
	switch {
	case !ok:
		out.problem = fmt.Sprintf("ConfigMap %s does not exist", key)
	case !has:
		out.problem = fmt.Sprintf("ConfigMap %s has no key %s", key, cluster.CAKey)
	case len(text) > MostCABytes:
		out.problem = fmt.Sprintf("key %s of ConfigMap %s has more than %d KiB", cluster.CAKey, key, MostCABytes>>10)
	default:
		var why string
		if out.pem, why = certificates(text); why != "" {
			out.pem, out.problem = "", fmt.Sprintf("key %s of ConfigMap %s %s", cluster.CAKey, key, why)
		}
	}
	return out
}

// certificates of a text in PEM, written as proxies take them: these reject what holds anything else.
func certificates(text string) (out, why string) {
	var all []string
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return "", "holds something else than certificates: a block " + fmt.Sprintf("%.40q", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return "", fmt.Sprintf("holds a certificate that can't be read, the one at place %d: %s", len(all)+1, err)
		}
		one := string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
		if !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	if len(all) == 0 {
		return "", "holds no certificate in PEM"
	}
	if strings.Contains(string(rest), "-----BEGIN") {
		return "", "is cut off, or holds a block that is no PEM"
	}
	return strings.Join(all, ""), ""
}
