/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints. Names are kept in arrays: one record layout on every kernel.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM iovm

#if !defined(_IOVM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _IOVM_TRACE_H

#include <linux/tracepoint.h>

#include "mux.h"

#define iovm_show_op(op)					\
	__print_symbolic(op,					\
			 { IOVM_OP_READ, "read" },		\
			 { IOVM_OP_WRITE, "write" },		\
			 { IOVM_OP_FLUSH, "flush" },		\
			 { IOVM_OP_DISCARD, "discard" },	\
			 { IOVM_OP_WRITE_ZEROES, "zero" })

#define iovm_show_state(state)					\
	__print_symbolic(state,					\
			 { IOVM_PATH_CONNECTING, "connecting" },\
			 { IOVM_PATH_LIVE, "live" },		\
			 { IOVM_PATH_SUSPECT, "suspect" },	\
			 { IOVM_PATH_FAILED, "failed" },	\
			 { IOVM_PATH_DRAINING, "draining" },	\
			 { IOVM_PATH_REMOVED, "removed" })

#define iovm_show_result(res)					\
	__print_symbolic(res,					\
			 { IOVM_RES_OK, "ok" },			\
			 { IOVM_RES_REQUEST, "request" },	\
			 { IOVM_RES_IO, "io" },			\
			 { IOVM_RES_PATH, "path" },		\
			 { IOVM_RES_RETRY, "retry" },		\
			 { IOVM_RES_UNSENT, "unsent" },	\
			 { IOVM_RES_MEDIA, "media" },		\
			 { IOVM_RES_NOSPC, "nospc" })

#define iovm_show_fate(fate)					\
	__print_symbolic(fate,					\
			 { IOVM_FATE_REPORT, "report" },	\
			 { IOVM_FATE_REQUEUE, "requeue" },	\
			 { IOVM_FATE_BIND, "bind" },		\
			 { IOVM_FATE_HOLD, "hold" },		\
			 { IOVM_FATE_RETRY, "retry" },		\
			 { IOVM_FATE_ELSEWHERE, "elsewhere" },	\
			 { IOVM_FATE_NOSPC, "nospc" },		\
			 { IOVM_FATE_NOSPC_BIND, "nospc-bind" })

TRACE_EVENT(iovm_submit,
	    TP_PROTO(const struct iovm_req *req),
	    TP_ARGS(req),
	    TP_STRUCT__entry(__field(const void *, req)
			     __field(u32, dev_id)
			     __field(u32, path_id)
			     __field(u64, offset)
			     __field(u32, len)
			     __field(u8, op)
			     __field(u8, flags)
	    ),
	    TP_fast_assign(__entry->req = req;
			   __entry->dev_id = req->dev->id;
			   __entry->path_id = req->path->id;
			   __entry->offset = req->offset;
			   __entry->len = req->len;
			   __entry->op = req->op;
			   __entry->flags = req->flags;
	    ),
	    TP_printk("dev=%u path=%u req=%p op=%s offset=%llu len=%u flags=%#x",
		      __entry->dev_id, __entry->path_id, __entry->req, iovm_show_op(__entry->op),
		      __entry->offset, __entry->len, __entry->flags)
);

TRACE_EVENT(iovm_complete,
	    TP_PROTO(const struct iovm_req *req, int res, int error),
	    TP_ARGS(req, res, error),
	    TP_STRUCT__entry(__field(const void *, req)
			     __field(u32, dev_id)
			     __field(u32, path_id)
			     __field(u64, offset)
			     __field(u64, issue_ns)
			     __field(u32, len)
			     __field(int, res)
			     __field(int, error)
			     __field(u8, op)
	    ),
	    TP_fast_assign(__entry->req = req;
			   __entry->dev_id = req->dev->id;
			   __entry->path_id = req->path->id;
			   __entry->offset = req->offset;
			   __entry->issue_ns = req->issue_ns;
			   __entry->len = req->len;
			   __entry->res = res;
			   __entry->error = error;
			   __entry->op = req->op;
	    ),
	    TP_printk("dev=%u path=%u req=%p op=%s offset=%llu len=%u res=%s error=%d issued=%llu",
		      __entry->dev_id, __entry->path_id, __entry->req, iovm_show_op(__entry->op),
		      __entry->offset, __entry->len, iovm_show_result(__entry->res), __entry->error,
		      __entry->issue_ns)
);

TRACE_EVENT(iovm_path_state,
	    TP_PROTO(const struct iovm_path *path, int old, int new, int error),
	    TP_ARGS(path, old, new, error),
	    TP_STRUCT__entry(__field(u32, dev_id)
			     __field(u32, path_id)
			     __array(char, dev, IOVM_NAME_MAX)
			     __array(char, path, IOVM_NAME_MAX)
			     __field(int, old)
			     __field(int, new)
			     __field(int, error)
	    ),
	    TP_fast_assign(__entry->dev_id = path->dev->id;
			   __entry->path_id = path->id;
			   memcpy(__entry->dev, path->dev->name, IOVM_NAME_MAX);
			   memcpy(__entry->path, path->name, IOVM_NAME_MAX);
			   __entry->old = old;
			   __entry->new = new;
			   __entry->error = error;
	    ),
	    TP_printk("dev=%u/%s path=%u/%s %s->%s error=%d",
		      __entry->dev_id, __entry->dev, __entry->path_id, __entry->path,
		      iovm_show_state(__entry->old), iovm_show_state(__entry->new), __entry->error)
);

TRACE_EVENT(iovm_requeue,
	    TP_PROTO(const struct iovm_req *req, int res, int error, int fate),
	    TP_ARGS(req, res, error, fate),
	    TP_STRUCT__entry(__field(const void *, req)
			     __field(u32, dev_id)
			     __field(u32, path_id)
			     __field(u64, offset)
			     __field(u32, len)
			     __field(int, res)
			     __field(int, error)
			     __field(int, fate)
			     __field(u8, op)
	    ),
	    TP_fast_assign(__entry->req = req;
			   __entry->dev_id = req->dev->id;
			   __entry->path_id = req->path->id;
			   __entry->offset = req->offset;
			   __entry->len = req->len;
			   __entry->res = res;
			   __entry->error = error;
			   __entry->fate = fate;
			   __entry->op = req->op;
	    ),
	    TP_printk("dev=%u path=%u req=%p op=%s offset=%llu len=%u res=%s error=%d fate=%s",
		      __entry->dev_id, __entry->path_id, __entry->req, iovm_show_op(__entry->op),
		      __entry->offset, __entry->len, iovm_show_result(__entry->res), __entry->error,
		      iovm_show_fate(__entry->fate))
);

#endif /* _IOVM_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
