// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"io"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

const (
	// Bounds of what is read of one container's log: its end.
	logLines = 3000
	logBytes = 4 << 20
)

// logReader reads the end of a container's log.
type logReader interface {
	read(ctx context.Context, pod types.NamespacedName, container string, previous bool) ([]byte, error)
}

// podLogs are those that the API server passes on (pods/log, verb get).
type podLogs struct{ config *rest.Config }

func (l *podLogs) read(
	ctx context.Context, pod types.NamespacedName, container string, previous bool,
) ([]byte, error) {
	cfg := rest.CopyConfig(l.config)
	cfg.APIPath, cfg.GroupVersion = "/api", &corev1.SchemeGroupVersion
	cfg.NegotiatedSerializer = clientgoscheme.Codecs.WithoutConversion()
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, err
	}
	stream, err := client.Get().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("log").
		VersionedParams(&corev1.PodLogOptions{
			Container: container, Previous: previous, Timestamps: true, TailLines: new(int64(logLines)),
			LimitBytes: new(int64(logBytes)),
		}, clientgoscheme.ParameterCodec).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }()
	return io.ReadAll(io.LimitReader(stream, logBytes))
}
