//! Values of the interface and of PostgreSQL, both ways: of the types that the component uses, each goes with
//! the same types of the other side as in Spin. The others are refused before the statement is executed.

use super::bindings::postgres::{Column, DbDataType, DbValue, Error, ParameterValue, QueryError};
use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// What becomes of a value that cannot be sent.
type Refusal = Box<dyn std::error::Error + Sync + Send>;

/// A parameter, ready to be sent.
pub(super) type Parameter = Box<dyn ToSql + Sync + Send>;

/// Makes parameters of what a guest gave.
pub(super) fn parameters(values: Vec<ParameterValue>) -> Result<Vec<Parameter>, Error> {
    (1..).zip(values).map(|(number, value)| parameter(number, value)).collect()
}

fn parameter(number: usize, value: ParameterValue) -> Result<Parameter, Error> {
    Ok(match value {
        ParameterValue::DbNull => Box::new(Null),
        ParameterValue::Int32(value) => Box::new(value),
        ParameterValue::Int64(value) => Box::new(value),
        ParameterValue::Str(value) => Box::new(value),
        ParameterValue::Binary(value) => Box::new(value),
        ParameterValue::Jsonb(value) => Box::new(Json(value)),
        _ => {
            return Err(Error::BadParameter(format!(
                "the type of parameter ${number} is unsupported by this host: it sends db-null, int32, int64, \
                 str, binary and jsonb"
            )));
        }
    })
}

/// The columns of a statement.
pub(super) fn columns(columns: &[tokio_postgres::Column]) -> Result<Vec<Column>, Error> {
    columns.iter().map(column).collect()
}

fn column(column: &tokio_postgres::Column) -> Result<Column, Error> {
    let (name, kind) = (column.name(), column.type_());
    let data_type = match *kind {
        Type::INT4 => DbDataType::Int32,
        Type::INT8 => DbDataType::Int64,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR => DbDataType::Str,
        Type::BYTEA => DbDataType::Binary,
        _ => {
            return Err(Error::QueryFailed(QueryError::Text(format!(
                "the type {kind} of the column {name} is unsupported by this host: cast it to int4, int8, text \
                 or bytea"
            ))));
        }
    };
    Ok(Column { name: name.to_owned(), data_type })
}

/// The values of a row.
pub(super) fn row(row: &tokio_postgres::Row) -> Result<Vec<DbValue>, tokio_postgres::Error> {
    (0..row.len()).map(|index| value(row, index)).collect()
}

fn value(row: &tokio_postgres::Row, index: usize) -> Result<DbValue, tokio_postgres::Error> {
    match *row.columns()[index].type_() {
        Type::INT4 => read(row, index, DbValue::Int32),
        Type::INT8 => read(row, index, DbValue::Int64),
        Type::BYTEA => read(row, index, DbValue::Binary),
        // All other columns have been refused.
        _ => read(row, index, DbValue::Str),
    }
}

fn read<'a, T: FromSql<'a>>(
    row: &'a tokio_postgres::Row,
    index: usize,
    value: impl FnOnce(T) -> DbValue,
) -> Result<DbValue, tokio_postgres::Error> {
    row.try_get::<_, Option<T>>(index).map(|read| read.map_or(DbValue::DbNull, value))
}

/// How much memory the values of a row take.
pub(super) fn size(row: &[DbValue]) -> usize {
    let held = |value: &DbValue| match value {
        DbValue::Str(text) => text.len(),
        DbValue::Binary(bytes) => bytes.len(),
        _ => 0,
    };
    size_of_val(row) + row.iter().map(held).sum::<usize>()
}

/// NULL, whatever the type.
#[derive(Debug)]
struct Null;

impl ToSql for Null {
    fn to_sql(&self, _: &Type, _: &mut BytesMut) -> Result<IsNull, Refusal> {
        Ok(IsNull::Yes)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// The text of a JSON value. The server says it if it is none.
#[derive(Debug)]
struct Json(Vec<u8>);

impl ToSql for Json {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        if *kind == Type::JSONB {
            // The version of its form.
            out.put_u8(1);
        }
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    accepts!(JSON, JSONB);
    to_sql_checked!();
}
