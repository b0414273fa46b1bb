// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// store puts objects into etcd as the API server writes them, by etcd's JSON interface. Tens of thousands of pods take
// the API server half an hour, and it isn't what is tested here; it learns of them as of another API server's.
type store struct {
	etcd    *url.URL
	encoder runtime.Encoder
}

func newStore(etcd *url.URL, scheme *runtime.Scheme) (*store, error) {
	codecs := serializer.NewCodecFactory(scheme)
	info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		return nil, fmt.Errorf("the scheme has no %s", runtime.ContentTypeProtobuf)
	}
	versions := schema.GroupVersions{corev1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion}
	return &store{etcd, codecs.EncoderForVersion(info.Serializer, versions)}, nil
}

// inTransaction is how many objects go in one transaction: as many as etcd allows.
const inTransaction = 128

// put is a request of a transaction.
type put struct {
	Put struct {
		Key   []byte `json:"key"`
		Value []byte `json:"value"`
	} `json:"requestPut"`
}

// put writes objects of one resource, such as "pods".
func (s *store) put(ctx context.Context, resource string, objects []client.Object) error {
	var txn struct {
		Success []put `json:"success"`
	}
	for _, o := range objects {
		var p put
		var err error
		p.Put.Key = fmt.Appendf(nil, "/registry/%s/%s/%s", resource, o.GetNamespace(), o.GetName())
		if p.Put.Value, err = runtime.Encode(s.encoder, o); err != nil {
			return err
		}
		txn.Success = append(txn.Success, p)
	}
	body, err := json.Marshal(txn)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.etcd.JoinPath("v3/kv/txn").String(),
		bytes.NewReader(body))
	if err != nil {
		return err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("etcd says %s: %s", r.Status, text)
	}
	return err
}
